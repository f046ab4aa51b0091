package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"

	"chatelaine/kms"
)

// readEntities reads users and groups. Buckets, objects and actions are made by the
// gateway from the request, so that no document can change what they are.
func readEntities(text []byte) (cedar.EntityMap, error) {
	out := make(cedar.EntityMap)
	if len(strings.TrimSpace(string(text))) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, fmt.Errorf("%w: entities: %w", kms.ErrInvalid, err)
	}
	for _, uid := range sortedUIDs(out) {
		if err := checkEntity(out, uid); err != nil {
			return nil, fmt.Errorf("%w: entities: %s::%q: %w", kms.ErrInvalid, uid.Type, uid.ID, err)
		}
	}
	return out, nil
}

func sortedUIDs(m cedar.EntityMap) []cedar.EntityUID {
	return slices.SortedFunc(maps.Keys(m), func(a, b cedar.EntityUID) int {
		return strings.Compare(string(a.Type)+"\x00"+string(a.ID), string(b.Type)+"\x00"+string(b.ID))
	})
}

func checkEntity(all cedar.EntityMap, uid cedar.EntityUID) error {
	if uid.Type != userType && uid.Type != groupType {
		return fmt.Errorf("only User and Group can be here")
	}
	for parent := range all[uid].Parents.All() {
		if parent.Type != groupType {
			return fmt.Errorf("it is in a %s; only a Group has members", parent.Type)
		}
		if _, ok := all[parent]; !ok {
			return fmt.Errorf("it is in Group::%q, which is not here%s", parent.ID, guess(string(parent.ID), groupNames(all)))
		}
		above := make(map[cedar.EntityUID]bool)
		if climb(all, parent, above); parent == uid || above[uid] {
			return fmt.Errorf("it is in Group::%q, which is in it", parent.ID)
		}
	}
	return nil
}

func groupNames(all cedar.EntityMap) []string {
	var names []string
	for uid := range all {
		if uid.Type == groupType {
			names = append(names, string(uid.ID))
		}
	}
	slices.Sort(names)
	return names
}

// memberships are the groups of each user, and the groups that those are in.
func memberships(all cedar.EntityMap) map[cedar.EntityUID]map[cedar.EntityUID]bool {
	out := make(map[cedar.EntityUID]map[cedar.EntityUID]bool)
	for uid := range all {
		if uid.Type == userType {
			out[uid] = make(map[cedar.EntityUID]bool)
			climb(all, uid, out[uid])
		}
	}
	return out
}

func climb(all cedar.EntityMap, uid cedar.EntityUID, reached map[cedar.EntityUID]bool) {
	for parent := range all[uid].Parents.All() {
		if !reached[parent] {
			reached[parent] = true
			climb(all, parent, reached)
		}
	}
}
