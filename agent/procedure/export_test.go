package procedure

import "time"

// SetBusyPause shortens the pause before a busy card is asked again.
func SetBusyPause(d time.Duration) { busyPause = d }

// SetLoadGrace shortens how long loading goes on when its context has ended.
func SetLoadGrace(d time.Duration) { loadGrace = d }
