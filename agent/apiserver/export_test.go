package apiserver

import "net"

// Doors to what tests look at from outside.
const (
	MaxBody        = maxBody
	MaxConnections = maxConnections
	HeaderTimeout  = headerTimeout
	BodyTimeout    = bodyTimeout
	StopTimeout    = stopTimeout
	MaxOthers      = maxOthers
	MaxOfOne       = maxOfOne
	MaxStrangers   = maxStrangers
	MaxTurnedAway  = maxTurnedAway
	AwayTimeout    = awayTimeout
	RequestEvery   = requestEvery
	RequestBurst   = requestBurst
	MaxRemembered  = maxRemembered
)

// Route is one line of the table, as tests see it.
type Route struct {
	Method, Path string
	Level        Level
}

// Routes is the table.
func Routes() []Route {
	var list []Route
	for _, r := range routes {
		list = append(list, Route{r.method, r.path, r.level})
	}
	return list
}

// MetricsLevel is the level of the one route that is not in the table.
var MetricsLevel = metricsRoute.level

// PeerOf reads who is at the other end.
func PeerOf(c net.Conn) (Peer, error) { return peerOf(c) }

// NewRates makes a memory of rates, of which tests see only how it counts.
func NewRates() func(uid uint32, n int) bool { return newRates().take }

// TurnAway is what happens to connections of l that are too many, and the wait
// for the end of that.
func TurnAway(l net.Listener) (turn func(net.Conn), wait func()) {
	limited := limitConnections(l, maxConnections, func(Peer) bool { return true })
	return limited.turnAway, limited.turnedAway.Wait
}

// Served is every route by "METHOD /whole/path", with the level it asks for.
func Served() map[string]Level {
	all := map[string]Level{}
	for target, r := range served {
		all[target] = r.level
	}
	return all
}
