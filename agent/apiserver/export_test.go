package apiserver

import "net"

// Doors to what tests look at from outside.
const (
	MaxBody        = maxBody
	MaxConnections = maxConnections
	HeaderTimeout  = headerTimeout
	StopTimeout    = stopTimeout
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
