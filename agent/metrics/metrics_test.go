package metrics_test

import (
	"strings"
	"testing"

	"lpad/agent/metrics"
	"lpad/agent/metrics/metricstest"
)

func TestText(t *testing.T) {
	var w metrics.Writer
	w.Family("lpad_build", metrics.Info, "", `a version, with "quotes" and \`)
	w.Sample(1, "version", "1.0\"\\\n", "go", "x")
	w.Family("lpad_uptime_seconds", metrics.Gauge, "seconds", "time")
	w.Sample(0.25)
	w.Family("lpad_jobs_ended", metrics.Counter, "", "jobs")
	w.Sample(3, "card", "main")
	w.Sample(12345678901234, "card", "spare")
	w.Family("lpad_card_state", metrics.StateSet, "", "how it goes")
	w.State("ready", []string{"busy", "ready"}, "card", "main")
	w.Family("lpad_switch_seconds", metrics.HistogramType, "seconds", "long")
	h := metrics.NewHistogram(1, 2.5)
	for _, v := range []float64{1, 1.5, 2.5, 3} {
		h.Observe(v)
	}
	w.Histogram(h, "card", "main")
	w.Family("lpad_nothing", metrics.Counter, "", "no samples yet")
	text := w.Text()
	want := `# TYPE lpad_build info
# HELP lpad_build a version, with \"quotes\" and \\
lpad_build_info{version="1.0\"\\\n",go="x"} 1
# TYPE lpad_uptime_seconds gauge
# UNIT lpad_uptime_seconds seconds
# HELP lpad_uptime_seconds time
lpad_uptime_seconds 0.25
# TYPE lpad_jobs_ended counter
# HELP lpad_jobs_ended jobs
lpad_jobs_ended_total{card="main"} 3
lpad_jobs_ended_total{card="spare"} 12345678901234
# TYPE lpad_card_state stateset
# HELP lpad_card_state how it goes
lpad_card_state{card="main",lpad_card_state="busy"} 0
lpad_card_state{card="main",lpad_card_state="ready"} 1
# TYPE lpad_switch_seconds histogram
# UNIT lpad_switch_seconds seconds
# HELP lpad_switch_seconds long
lpad_switch_seconds_bucket{card="main",le="1.0"} 1
lpad_switch_seconds_bucket{card="main",le="2.5"} 3
lpad_switch_seconds_bucket{card="main",le="+Inf"} 4
lpad_switch_seconds_count{card="main"} 4
lpad_switch_seconds_sum{card="main"} 8
# TYPE lpad_nothing counter
# HELP lpad_nothing no samples yet
# EOF
`
	if text != want {
		t.Errorf("got\n%s", text)
	}
	families, err := metricstest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := families["lpad_build"].Samples[0].Labels["version"]; got != "1.0\"\\\n" {
		t.Errorf("version %q", got)
	}
}

// TestStrict: the reader finds what is wrong.
func TestStrict(t *testing.T) {
	head := "# TYPE a gauge\n# HELP a x\n"
	for name, text := range map[string]string{
		"no end":                   head + "a 1\n",
		"something behind the end": head + "# EOF\na 1\n",
		"no line break":            head + "a 1# EOF\n",
		"no help":                  "# TYPE a gauge\na 1\n# EOF\n",
		"type twice":               "# TYPE a gauge\n" + head + "# EOF\n",
		"unknown type":             "# TYPE a thing\n# HELP a x\n# EOF\n",
		"unit not in the name":     "# TYPE a gauge\n# UNIT a bytes\n# HELP a x\n# EOF\n",
		"counter without total":    "# TYPE a counter\n# HELP a x\na 1\n# EOF\n",
		"total in the name":        "# TYPE a_total counter\n# HELP a_total x\n# EOF\n",
		"negative counter":         "# TYPE a counter\n# HELP a x\na_total -1\n# EOF\n",
		"info of 2":                "# TYPE a info\n# HELP a x\na_info 2\n# EOF\n",
		"state without its label":  "# TYPE a stateset\n# HELP a x\na 1\n# EOF\n",
		"same sample twice":        head + "a{b=\"1\"} 1\na{b=\"1\"} 2\n# EOF\n",
		"label twice":              head + "a{b=\"1\",b=\"1\"} 1\n# EOF\n",
		"open quote":               head + "a{b=\"1} 1\n# EOF\n",
		"escape":                   head + "a{b=\"\\t\"} 1\n# EOF\n",
		"two blanks":               head + "a  1\n# EOF\n",
		"not a figure":             head + "a 1x\n# EOF\n",
		"hexadecimal":              head + "a 0x10\n# EOF\n",
		"no family":                "a 1\n# EOF\n",
		"of another family":        head + "b 1\n# EOF\n",
		"families interleaved":     head + "a 1\n# TYPE b gauge\n# HELP b x\nb 1\n# HELP a y\n# EOF\n",
		"help behind samples":      "# TYPE a gauge\na 1\n# HELP a x\n# EOF\n",
		"empty line":               head + "\na 1\n# EOF\n",
		"histogram without +Inf":   "# TYPE a histogram\n# HELP a x\na_bucket{le=\"1.0\"} 1\na_count 1\na_sum 1\n# EOF\n",
		"histogram that shrinks":   "# TYPE a histogram\n# HELP a x\na_bucket{le=\"1.0\"} 2\na_bucket{le=\"+Inf\"} 1\na_count 1\na_sum 1\n# EOF\n",
		"bound not canonical":      "# TYPE a histogram\n# HELP a x\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 1\na_count 1\na_sum 1\n# EOF\n",
	} {
		if _, err := metricstest.Parse(text); err == nil {
			t.Errorf("%s: no error for\n%s", name, text)
		} else if strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f, err := metricstest.Parse(head + "a{b=\"1\"} 1\na{b=\"2\"} -2.5e3\n# EOF\n"); err != nil || len(f["a"].Samples) != 2 {
		t.Errorf("%v, %v", f, err)
	}
}

// FuzzLabel: whatever a label's value is, it is read as it was written.
func FuzzLabel(f *testing.F) {
	f.Add("plain")
	f.Add("\"\\\n")
	f.Add("\xff{}= #")
	f.Fuzz(func(t *testing.T, value string) {
		var w metrics.Writer
		w.Family("a", metrics.Gauge, "", "x")
		w.Sample(1, "b", value)
		all, err := metricstest.Parse(w.Text())
		if err != nil {
			t.Fatal(err)
		}
		if got := all["a"].Samples[0].Labels["b"]; got != strings.ToValidUTF8(value, "?") {
			t.Errorf("%q, want %q", got, value)
		}
	})
}
