package approval

import "time"

// clock tells the time as deadlines need it. Records hold wall-clock times, as
// processes must agree on them, and a wall clock can be set. So there are two: the
// wall clock, and one that ran on steadily since the process began. Where they differ,
// what must not come too early waits for the later of them to agree, and what must end
// ends with the first.
type clock struct {
	wall   func() time.Time     // UTC
	steady func() time.Duration // since began; is not set by anybody
	began  time.Time            // wall clock at the start
}

func newClock() clock {
	began := time.Now()
	return clock{
		wall:   func() time.Time { return time.Now().UTC().Round(0) },
		steady: func() time.Duration { return time.Since(began) },
		began:  began.UTC().Round(0),
	}
}

// instant is a moment of which only is known that it is not before early and not
// after late.
type instant struct{ early, late time.Time }

func (c clock) now() instant {
	wall, steady := c.wall(), c.began.Add(c.steady())
	if steady.Before(wall) {
		return instant{early: steady, late: wall}
	}
	return instant{early: wall, late: steady}
}

// reached says whether a time has surely come.
func (i instant) reached(t time.Time) bool { return !i.early.Before(t) }

// passed says whether a time may be over.
func (i instant) passed(t time.Time) bool { return !i.late.Before(t) }
