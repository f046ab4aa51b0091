package approval

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Quorum says how many of each group must agree. A person fills one place only, also
// who is in several groups.
type Quorum map[string]int

// String is "2 of security and 1 of legal", or "nobody".
func (q Quorum) String() string {
	var parts []string
	for _, group := range slices.Sorted(maps.Keys(q)) {
		parts = append(parts, fmt.Sprintf("%d of %s", q[group], group))
	}
	if len(parts) == 0 {
		return "nobody"
	}
	return strings.Join(parts, " and ")
}

// size is how many people are needed.
func (q Quorum) size() int {
	n := 0
	for _, count := range q {
		n += count
	}
	return n
}

// met says whether people, each named once, fill all places.
func (q Quorum) met(groups map[string][]string, people []string) bool {
	return q.filled(groups, people) == q.size()
}

// filled is the largest number of places that the people can fill: a maximum matching
// of places and people, by augmenting paths (Kuhn's algorithm).
func (q Quorum) filled(groups map[string][]string, people []string) int {
	m := matching{holder: make(map[string]int)}
	for _, group := range slices.Sorted(maps.Keys(q)) {
		able := slices.DeleteFunc(slices.Clone(people), func(p string) bool { return !slices.Contains(groups[group], p) })
		for range q[group] {
			m.places = append(m.places, able)
		}
	}
	filled := 0
	for place := range m.places {
		if m.fill(place, make(map[string]bool)) {
			filled++
		}
	}
	return filled
}

type matching struct {
	places [][]string     // who could fill each place
	holder map[string]int // the place that a person fills
}

// fill finds somebody for a place, and others for the places that this empties.
func (m *matching) fill(place int, tried map[string]bool) bool {
	for _, person := range m.places[place] {
		if tried[person] {
			continue
		}
		tried[person] = true
		held, busy := m.holder[person]
		if !busy || m.fill(held, tried) {
			m.holder[person] = place
			return true
		}
	}
	return false
}
