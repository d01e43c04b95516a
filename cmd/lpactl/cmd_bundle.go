package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

// Limits of a bundle.
const (
	bundlePart   = 1 << 20 // bytes of one file in it
	bundleLines  = 2000    // of the log
	bundleJobs   = 20      // with their timelines
	bundleEvents = 500
	bundleAnswer = time.Minute // for one question
)

// bundle collects the files, each of which has been made fit to be told.
type bundle struct {
	names   []string
	files   map[string][]byte
	missing []string // what could not be had, and why
}

// put adds a text. Everything in a bundle goes through here, and is scrubbed
// here, whatever was done to it before. Of too much the end is kept.
func (b *bundle) put(name, text string) {
	text = scrubbed(text)
	if cut := len(text) - bundlePart; cut > 0 {
		if i := strings.IndexByte(text[cut:], '\n'); i >= 0 { // the first of the lines that are left is whole
			cut += i + 1
		}
		text = "(cut)\n" + text[cut:]
	}
	b.names, b.files[name] = append(b.names, name), []byte(text)
}

// document adds what a question was answered with.
func (b *bundle) document(name string, v any, err error) {
	if err == nil {
		var text []byte
		if text, err = redacted(v); err == nil {
			b.put(name, string(text))
			return
		}
	}
	b.miss(name, err)
}

func (b *bundle) miss(name string, err error) {
	b.missing = append(b.missing, oneLine(name+": "+scrubbed(err.Error())))
}

func (a *app) bundleCommand() *cobra.Command {
	var config, log string
	var noProbe bool
	cmd := &cobra.Command{
		Use:   "support-bundle FILE.tar.gz",
		Short: "collect what a developer needs to see, without identifiers and secrets",
		Long: `Write status, cards, profiles, jobs, events, notifications, the findings of the doctor, the verdict of the probe with what
is known of the modem, versions, configuration and the end of the log into FILE. An EID, ICCID, IMSI or IMEI is shortened
to its first five and last two digits; activation codes, matching ids, confirmation codes, passwords, tokens, nicknames
and the paths of addresses are left out. Read it before you send it: a log may hold what nobody has foreseen.

It works without a daemon, as far as that goes. FILE must not be there yet.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				b := &bundle{files: map[string][]byte{}}
				a.collect(ctx, c, b, !noProbe)
				b.configuration(ctx, config)
				b.log(ctx, log)
				if err := ctx.Err(); err != nil {
					return err
				}
				b.put("README", "What lpactl support-bundle has collected. Identifiers are shortened, secrets are left out.\n"+
					"Not there:\n"+strings.Join(b.missing, "\n")+"\n")
				size, err := b.write(args[0])
				if err != nil {
					return fmt.Errorf("write the bundle: %w", err)
				}
				if a.json {
					return a.ui.document(map[string]any{"file": args[0], "bytes": size, "files": b.names, "missing": b.missing})
				}
				for _, m := range b.missing {
					a.ui.note("not in it: %s", m)
				}
				a.ui.printf("%s, %d bytes, %d files; read it before you send it\n", args[0], size, len(b.names))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&config, "config", "/etc/lpad/lpad.yaml", "lpad's configuration `file`")
	cmd.Flags().StringVar(&log, "log", "", "lpad's log `file`, where it does not log to the journal")
	cmd.Flags().BoolVar(&noProbe, "no-probe", false, "leave the modem alone")
	return cmd
}

// collect asks the daemon for all that it tells.
func (a *app) collect(ctx context.Context, c *client.Client, b *bundle, probe bool) {
	limited := func(ask func(context.Context)) {
		ctx, cancel := context.WithTimeout(ctx, bundleAnswer)
		defer cancel()
		ask(ctx)
	}
	d := &doctor{ui: &ui{out: io.Discard, errs: io.Discard, json: true}, client: c, socket: a.socket}
	limited(func(ctx context.Context) {
		b.document("doctor.json", map[string]any{"findings": &d.findings}, d.examine(ctx))
	})
	var status api.Status
	limited(func(ctx context.Context) {
		var err error
		status, err = c.Status(ctx)
		b.document("status.json", status, err)
		b.document("versions.json", versions(status), nil)
	})
	if status.Version == "" {
		return // nobody answers, which status.json has told
	}
	limited(func(ctx context.Context) { v, err := c.Cards(ctx); b.document("cards.json", v, err) })
	limited(func(ctx context.Context) { v, err := c.EUICC(ctx); b.document("euicc.json", v, err) })
	limited(func(ctx context.Context) { v, err := c.Profiles(ctx); b.document("profiles.json", v, err) })
	limited(func(ctx context.Context) { v, err := c.Notifications(ctx); b.document("notifications.json", v, err) })
	limited(func(ctx context.Context) { v, err := c.Effective(ctx, ""); b.document("parameters.json", v, err) })
	limited(func(ctx context.Context) {
		v, err := c.Jobs(ctx)
		v.Jobs = v.Jobs[:min(len(v.Jobs), bundleJobs)]
		for i, j := range v.Jobs {
			if whole, jerr := c.Job(ctx, j.ID); jerr == nil {
				v.Jobs[i] = whole
			}
		}
		b.document("jobs.json", v, err)
	})
	limited(func(ctx context.Context) {
		v, err := events(ctx, c, status.LastEvent)
		b.document("events.json", v, err)
	})
	if probe {
		v, err := c.Probe(ctx) // as long as a silent modem takes
		b.document("probe.json", v, err)
	}
}

// events are the latest up to one that was there before.
func events(ctx context.Context, c *client.Client, last uint64) (list []api.Event, err error) {
	if last == 0 {
		return []api.Event{}, nil
	}
	enough := errors.New("enough")
	after := uint64(0)
	if last > bundleEvents {
		after = last - bundleEvents
	}
	err = c.Watch(ctx, client.WatchOptions{After: after}, func(e api.Event) error {
		list = append(list, e)
		if e.ID >= last || len(list) >= bundleEvents {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return list, err
}

// versions are those that matter, with what the system says of itself.
func versions(s api.Status) map[string]string {
	v := map[string]string{"lpactl": version, "lpad": s.Version}
	if text, err := os.ReadFile("/proc/version"); err == nil {
		v["kernel"] = strings.TrimSpace(string(text))
	}
	if text, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				v["system"] = strings.Trim(strings.TrimSpace(name), `"`)
			}
		}
	}
	return v
}

// shownKeys are the sections of the configuration whose values are told; of a
// key whose name sounds like a secret never more than the name.
var shownKeys = words("version state_dir socket card cards modem network rsp api journal log reports hooks params parameters orders")

// configuration is what "lpad --check" makes of the files: every key with its
// value, and where that is from.
func (b *bundle) configuration(ctx context.Context, file string) {
	const name = "configuration.txt"
	program := "/usr/sbin/lpad"
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), "lpad"); exists(beside) {
			program = beside
		}
	}
	ctx, cancel := context.WithTimeout(ctx, bundleAnswer)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--config", file, "--check").CombinedOutput()
	if err != nil {
		b.miss(name, fmt.Errorf("%w: %s", err, out))
		return
	}
	var text strings.Builder
	for line := range strings.Lines(string(out)) {
		key := strings.TrimRight(cmp.Or(append(strings.Fields(line), "")[0], ""), ":=")
		section, _, _ := strings.Cut(key, ".")
		section, _, _ = strings.Cut(section, "[")
		switch {
		case !shownKeys[section] || secretName(key):
			text.WriteString(key + " (left out)\n")
		default:
			text.WriteString(line)
		}
	}
	b.put(name, text.String())
}

// secretName knows names of keys whose values are nobody's business.
func secretName(key string) bool {
	key = strings.ToLower(key)
	for _, w := range []string{"pass", "secret", "token", "code", "key", "pin", "user", "credential"} {
		if strings.Contains(key, w) {
			return true
		}
	}
	return false
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// log is the end of what lpad has logged.
func (b *bundle) log(ctx context.Context, file string) {
	const name = "log.txt"
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			b.miss(name, err)
			return
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Size() > bundlePart {
			_, err = f.Seek(-bundlePart, io.SeekEnd)
			if err != nil {
				b.miss(name, err)
				return
			}
		}
		text, err := io.ReadAll(io.LimitReader(f, bundlePart))
		if err != nil {
			b.miss(name, err)
			return
		}
		b.put(name, string(text))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, bundleAnswer)
	defer cancel()
	out, err := exec.CommandContext(ctx, "journalctl", "--no-pager", "--quiet", "--unit", "lpad", "--lines", fmt.Sprint(bundleLines), "--output", "short-iso").Output()
	if err != nil {
		b.miss(name, fmt.Errorf("journalctl: %w; --log names a file", err))
		return
	}
	b.put(name, string(out))
}

// write makes the archive, for its owner alone to read.
func (b *bundle) write(file string) (size int64, err error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	t := tar.NewWriter(z)
	now := time.Now()
	for _, name := range b.names {
		if err := t.WriteHeader(&tar.Header{Name: "lpad-support/" + name, Mode: 0o600, Size: int64(len(b.files[name])), ModTime: now}); err != nil {
			return 0, err
		}
		if _, err := t.Write(b.files[name]); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = f.Write(packed.Bytes())
	return int64(packed.Len()), errors.Join(err, f.Close())
}
