package procedure

import "time"

// SetBusyPause shortens the pause before a busy card is asked again.
func SetBusyPause(d time.Duration) { busyPause = d }
