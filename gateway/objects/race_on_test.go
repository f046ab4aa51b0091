//go:build race

package objects

// raceEnabled: the race detector makes every byte ten times dearer, and what it
// looks for does not depend on sizes.
const raceEnabled = true
