package mm_test

import (
	"slices"
	"strings"
	"testing"

	"lpad/modem/mm"
)

func TestWantedModes(t *testing.T) {
	quad := []string{"2,0", "4,0", "8,0", "12,0", "14,8", "14,0", "24,16", "4294967295,0"}
	for _, tc := range []struct {
		name, rats, want, lacking string
		supported                 []string
	}{
		{"one", "lte", "8 0", "", quad},
		{"two", "lte umts", "12 0", "", quad},
		{"rather without a preference", "gsm umts lte", "14 0", "", quad},
		{"with one if it must be", "lte nr", "24 16", "", quad},
		{"no such combination", "gsm lte", "", "cannot be limited", quad},
		{"a part is missing", "lte nr", "8 0", "does not have all", []string{"2,0", "8,0"}},
		{"not told apart", "nb-iot", "8 0", "lte-m", []string{"8,0"}},
		{"nothing known", "lte", "", "cannot be limited", []string{"4294967295,0", "x", ""}},
		{"circuit switched is no technology", "gsm", "3 0", "", []string{"3,0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want, lacking := mm.WantedModes(strings.Fields(tc.rats), tc.supported)
			if strings.Join(want, " ") != tc.want || !strings.Contains(lacking, tc.lacking) || tc.lacking == "" && lacking != "" {
				t.Errorf("%q, %q, want %q, %q", want, lacking, tc.want, tc.lacking)
			}
		})
	}
}

func TestWantedBands(t *testing.T) {
	supported := []string{"1", "2", "5", "31", "33", "50"} // EGSM, DCS, UTRAN 1, LTE 1, 3, 20
	for _, tc := range []struct {
		name, now, want, lacking string
		bands                    []int
	}{
		{"LTE alone is replaced", "1 5 31 33", "1 5 50", "", []int{20}},
		{"from any", "256", "1 2 33 5 50", "", []int{20, 3}},
		{"some are missing", "1 31", "1 33", "band 7 8", []int{3, 7, 8}},
		{"none is there", "1 31", "", "none", []int{7}},
		{"twice", "31", "33", "", []int{3, 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want, lacking := mm.WantedBands(tc.bands, strings.Fields(tc.now), supported)
			if strings.Join(want, " ") != tc.want || !strings.Contains(lacking, tc.lacking) || tc.lacking == "" && lacking != "" {
				t.Errorf("%q, %q, want %q, %q", want, lacking, tc.want, tc.lacking)
			}
		})
	}
}

// What is sent comes of what was written down, and of nothing else.
func TestSettingArg(t *testing.T) {
	for _, tc := range []struct {
		name, values string
		ok           bool
	}{
		{mm.Modes, "8 0", true}, {mm.Modes, "8", false}, {mm.Modes, "8 x", false}, {mm.Modes, "8 0 0", false}, {mm.Modes, "8,1 0", false},
		{mm.Bands, "31 32", true}, {mm.Bands, "-1", false}, {mm.Bands, "4294967296", false},
		{mm.Preferred, "26201,16384", true}, {mm.Preferred, "26201", false}, {"", "1", false},
	} {
		if _, err := mm.SettingArg(tc.name, strings.Fields(tc.values)); (err == nil) != tc.ok {
			t.Errorf("%s %s: %v", tc.name, tc.values, err)
		}
	}
	if got := mm.SettingOf([]uint32{9, 3}); !slices.Equal(got, []string{"3", "9"}) {
		t.Errorf("bands %q", got)
	}
	if got := mm.SettingOf([][]any{{"26201", uint32(16384)}, {"short"}}); !slices.Equal(got, []string{"26201,16384", "short"}) {
		t.Errorf("networks %q", got)
	}
}
