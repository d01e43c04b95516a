package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"lpad/agent/params"
	"lpad/internal/redact"
	"lpad/internal/smallfile"
)

// Bounds of the maker's folder. What is beyond is left out and reported.
const (
	maxOEMFiles = 64
	maxOEMFile  = 64 << 10 // bytes
)

// oemFolder is what the maker's folder says: documents in the order of their
// names, and what was wrong with the others.
type oemFolder struct {
	given   []given
	limits  *params.Limits // instead of those that cannot be read
	skipped []string
}

func (o *oemFolder) skip(name string, err error) {
	o.skipped = append(o.skipped, name+" is left out: "+err.Error())
}

// limitsFile is read before all others. If it cannot be, nobody may change
// what it could have forbidden: the radio stays as it is, and no server is
// taken over. Roaming is not forbidden then, which could cut the device off.
const limitsFile = "limits.json"

func (o *oemFolder) loseLimits() {
	o.limits = &params.Limits{LTEBands: []int{}, RATs: []string{}, ServerHosts: []string{}}
}

// ofMaker is what the maker says, with the passwords that are referred to.
func (s *settingsSource) ofMaker(secrets map[string]redact.Secret) oemFolder {
	o := s.readFolder()
	for _, g := range o.given {
		if err := s.secrets(g.Document, ".", secrets); err != nil {
			o.skipped = append(o.skipped, g.Source+": an access point is left out: "+err.Error()) // what else it says stays, limits above all
		}
	}
	return o
}

// readFolder reads the documents of the device's maker. A folder that is not
// there is empty.
func (s *settingsSource) readFolder() oemFolder {
	var o oemFolder
	if s.config().OEMDir == "" {
		return o
	}
	root, names, err := openFolder(s.config().OEMDir, ".json")
	if err != nil {
		o.skip(s.config().OEMDir, err)
	}
	if root == nil {
		return o
	}
	defer root.Close()
	if at, ok := slices.BinarySearch(names, limitsFile); ok {
		names = slices.Concat(names[at:at+1], names[:at], names[at+1:])
	}
	if len(names) > maxOEMFiles {
		o.skip(s.config().OEMDir, fmt.Errorf("%d of its files are too many: %d are read", len(names)-maxOEMFiles, maxOEMFiles))
		names = names[:maxOEMFiles]
	}
	for _, name := range names {
		source := params.SourceOEM + ": " + name
		text, mode, err := readTrusted(root, name, maxOEMFile)
		if err == nil {
			err = o.add(source, text, mode&0o077 == 0)
		}
		if err != nil {
			o.skip(source, err)
			if name == limitsFile {
				o.loseLimits()
			}
		}
	}
	return o
}

// openFolder lists the files of a folder, in the order of their names, that nobody
// else may write to. nil, without an error: there is none.
func openFolder(path, suffix string) (root *os.Root, names []string, err error) {
	if root, err = os.OpenRoot(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	dir, err := root.Open(".")
	if err == nil {
		var st fs.FileInfo
		if st, err = dir.Stat(); err == nil {
			err = trusted(st)
		}
		if err == nil {
			names, err = dir.Readdirnames(-1)
		}
		dir.Close()
	}
	if err != nil {
		root.Close()
		return nil, nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, suffix) || strings.HasPrefix(n, ".") })
	slices.Sort(names)
	return root, names, nil
}

// add takes one file over. One that others cannot read may hold passwords.
func (o *oemFolder) add(source string, text []byte, private bool) error {
	d, err := params.Parse(text, params.Options{Confidential: private})
	if err != nil {
		return err
	}
	o.given = append(o.given, give(d, params.RankOEM, source, text))
	return nil
}

// readTrusted reads one file of at most limit bytes, and says who can read it.
func readTrusted(root *os.Root, name string, limit int64) (text []byte, mode fs.FileMode, err error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not keep us
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil {
		err = trusted(st)
	}
	if err != nil {
		return nil, 0, err
	}
	text, err = smallfile.ReadOpen(f, limit)
	if named := (*fs.PathError)(nil); errors.As(err, &named) { // who reads it knows the name
		err = named.Err
	}
	return text, st.Mode().Perm(), err
}

// trusted refuses what somebody else than root and lpad's own user may have
// written.
func trusted(st os.FileInfo) error {
	if own, ok := st.Sys().(*syscall.Stat_t); ok && own.Uid != 0 && int(own.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to the user %d; only root and lpad's own user are trusted", own.Uid)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %04o): chmod go-w", st.Mode().Perm())
	}
	return nil
}

// remember keeps what was wrong, for the status, and logs what is new.
func (s *settingsSource) remember(skipped []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range skipped {
		if !slices.Contains(s.skipped, text) {
			s.log.Warn("terminal parameters of the maker", "problem", text)
		}
	}
	s.skipped = skipped
}

// warnings are what is wrong with the maker's folder now.
func (s *settingsSource) warnings() []string {
	o := s.ofMaker(map[string]redact.Secret{})
	s.remember(o.skipped)
	var out []string
	for _, text := range o.skipped {
		out = append(out, "terminal parameters of the maker (params.oem_dir): "+text)
	}
	return out
}
