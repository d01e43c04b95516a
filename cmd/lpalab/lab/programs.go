package lab

import (
	"context"
	"fmt"
	"os/exec"
)

// BuildPrograms builds lpad, lpactl and lpad-pcsc into a folder, for tests that
// run them. The Makefile in the project's folder knows the flags: what is tested
// is what is shipped. variables are for make, such as "VERSION=1.0".
func BuildPrograms(ctx context.Context, project, dir string, variables ...string) error {
	args := append([]string{"-C", project, "programs", "BUILD=" + dir}, variables...)
	if out, err := exec.CommandContext(ctx, "make", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}
