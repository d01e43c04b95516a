package operator

import (
	"context"
	"errors"
	"fmt"

	"lpad/agent/api"
	"lpad/agent/client"
)

// Socket is the link to a device whose local socket can be reached.
func Socket(c *client.Client) Link { return socket{c} }

type socket struct{ client *client.Client }

// Submit posts the order to the socket.
func (l socket) Submit(ctx context.Context, order []byte) (string, error) {
	j, err := l.client.Order(ctx, order)
	var p *api.Problem
	if errors.As(err, &p) {
		err = fmt.Errorf("%w (%s)", err, p.Code)
	}
	return j.ID, err
}
