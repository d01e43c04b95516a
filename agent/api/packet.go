package api

// Packet is one request to a server of a device without a network, or the
// server's answer to it: a message of the socket, and as it stands the content of
// a file that somebody carries (docs/packets.md). An answer has a Status.
type Packet struct {
	Version  int    `json:"lpad_packet"`    // of the format: 1
	ID       string `json:"id"`             // of the request, and of its answer: where it comes from, its number, and the first 12 digits of its sum
	Job      string `json:"job,omitempty"`  // whose request it is; of a notification empty
	Number   int64  `json:"number"`         // among the packets of the job; of a notification its sequence number
	Function string `json:"function"`       // of ES9+: "authenticateClient"
	Body     string `json:"body,omitempty"` // as it is sent, or came: JSON
	Sum      string `json:"sum"`            // SHA-256 of what stands above and below, in hexadecimal; see package packets

	// Of a request.
	URL      string `json:"url,omitempty"`      // where it goes: https
	Protocol string `json:"protocol,omitempty"` // header X-Admin-Protocol

	// Of an answer.
	Status     int   `json:"status,omitempty"`      // of HTTP
	RetryAfter int64 `json:"retry_after,omitempty"` // seconds; 0: the server has not said
}

// PacketVersion is the version of the format of a [Packet].
const PacketVersion = 1

// Limits of a packet, in bytes. A profile package of 1 MB is an answer of some 1.4 MB.
const (
	MaxPacket        = 4 << 20   // an answer, as it is sent to the socket or lies in a file
	MaxRequestPacket = 128 << 10 // a request: certificates and signatures
)

// Packets are the requests that wait to be carried to their servers.
type Packets struct {
	Packets []Packet `json:"packets"`        // in the order in which they must reach their servers
	Note    string   `json:"note,omitempty"` // what is left out, and why
}

// PacketWait says which packet a job waits for.
type PacketWait struct {
	ID       string `json:"id"`
	Number   int64  `json:"number"`
	Of       int64  `json:"of"` // about so many there will be, if all goes well
	Function string `json:"function"`
	Note     string `json:"note,omitempty"` // why the session was begun anew, if it was
}

// CodePacketSuperseded is the code of an answer that nothing waits for any more.
const CodePacketSuperseded = "packet-superseded"
