package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Level is what a caller may do. Each includes the ones before it.
type Level int

// The levels.
const (
	None    Level = iota // nothing: may connect, is refused
	Read                 // look
	Operate              // install, switch, rename
	Admin                // delete, and what cannot be undone
)

// String names the level as the configuration does.
func (l Level) String() string {
	return [...]string{"none", "read", "operate", "admin"}[max(None, min(l, Admin))]
}

// Peer is who is at the other end of a connection, by the kernel's word at the
// time of connecting.
type Peer struct {
	UID, GID uint32
	PID      int32
	Groups   []uint32 // supplementary groups
}

// Policy gives levels to groups. A group id of 0 stands for no group: root
// needs none.
type Policy struct {
	ReadGID, OperateGID, AdminGID uint32
}

// Level of a caller: root and the daemon's own user may do everything, others
// what the highest of their groups may.
func (p Policy) Level(c Peer) Level {
	in := func(g uint32) bool { return g != 0 && (c.GID == g || slices.Contains(c.Groups, g)) }
	switch {
	case c.UID == 0 || c.UID == uint32(os.Geteuid()) || in(p.AdminGID):
		return Admin
	case in(p.OperateGID):
		return Operate
	case in(p.ReadGID):
		return Read
	}
	return None
}

type peerKey struct{}

// withPeer remembers whose connection it is. Without credentials every route
// refuses.
func (s *Server) withPeer(ctx context.Context, c net.Conn) context.Context {
	lc, ok := c.(*countedConn)
	if !ok {
		return ctx
	}
	if lc.err != nil {
		s.log.Warn("peer credentials", "err", lc.err)
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, lc.peer)
}

func peerOf(c net.Conn) (Peer, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}, errors.New("not a unix socket")
	}
	rc, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	var inner error
	err = rc.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		p = Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
		p.Groups, inner = peerGroups(int(fd))
	})
	if err = errors.Join(err, inner); err != nil {
		return Peer{}, fmt.Errorf("read peer credentials: %w", err)
	}
	return p, nil
}

// peerGroups reads SO_PEERGROUPS (Linux 4.13), for which x/sys has no wrapper.
// The kernel says ERANGE and the right size when the buffer is too small.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for range 2 {
		size := uint32(len(groups) * 4)
		_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4], nil
		case syscall.ERANGE:
			groups = make([]uint32, size/4+1)
		default:
			return nil, errno
		}
	}
	return nil, syscall.ERANGE
}
