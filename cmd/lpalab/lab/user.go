package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lpad/modem/modemtest"
	"lpad/packaging"
)

// account is the user that lpad runs as.
type account struct{ uid, gid int }

// installPackage puts what a package puts beside the programs onto a device that
// is to be started, and gives the folder of the site to lpad's user.
func (s *site) installPackage(sc *modemtest.StackConfig) (*account, error) {
	sc.Root = filepath.Join(s.dir, "root")
	if err := packaging.Install(sc.Root); err != nil {
		return nil, err
	}
	if err := packaging.Accounts(sc.Root); err != nil {
		return nil, err
	}
	a, err := findAccount(filepath.Join(sc.Root, "etc/passwd"), packaging.User)
	if err != nil {
		return nil, err
	}
	// The bus is in there, and polkitd is another user again.
	return a, errors.Join(os.Chmod(s.dir, 0o755), os.Chown(s.dir, a.uid, a.gid))
}

// findAccount reads the numbers of a user in a file as passwd(5) has it.
func findAccount(file, user string) (*account, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Split(line, ":")
		if f[0] != user || len(f) < 4 {
			continue
		}
		uid, uerr := strconv.Atoi(f[2])
		gid, gerr := strconv.Atoi(f[3])
		return &account{uid, gid}, errors.Join(uerr, gerr)
	}
	return nil, fmt.Errorf("%s has no user %s", file, user)
}

// givePort does what 79-lpad.rules has udev do: the agent's AT port is for the
// group lpad to read and write.
func (a *account) givePort(s *modemtest.Stack) error {
	port := s.OpenAgentPort()
	return errors.Join(os.Chown(port, 0, a.gid), os.Chmod(port, 0o660))
}
