package units

import (
	"encoding/json"
	"testing"
	"time"
)

func TestSecondsAreANumberInJSON(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                          "0",
		90 * time.Second:           "90",
		1500 * time.Millisecond:    "1.5",
		4267300 * time.Nanosecond:  "0.004267",
		-time.Second:               "-1",
		1590396 * time.Microsecond: "1.590396",
		1564582 * time.Microsecond: "1.564582",
		2020 * time.Millisecond:    "2.02",
	} {
		got, err := json.Marshal(Seconds(d))
		if err != nil || string(got) != want {
			t.Errorf("%s is %s, wanted %s (%v)", d, got, want, err)
		}
		var back Seconds
		if err := json.Unmarshal(got, &back); err != nil || back.Duration() != d.Round(time.Microsecond) {
			t.Errorf("%s comes back as %s (%v)", d, back, err)
		}
	}
	var s Seconds
	if err := json.Unmarshal([]byte(`"1s"`), &s); err == nil {
		t.Error("text was taken for a number of seconds")
	}
}

func TestRatiosAreShort(t *testing.T) {
	for part, want := range map[float64]string{0: "0", 1: "1", 1.0 / 3: "0.3333", 0.95: "0.95", 0.123456: "0.1235"} {
		if got, err := json.Marshal(Ratio(part)); err != nil || string(got) != want {
			t.Errorf("%g is %s, wanted %s (%v)", part, got, want, err)
		}
	}
}

func TestBytesKeepTwoOrThreeDigits(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_940: "9.9 kB", 9_960: "10 kB", 312_400_000: "312 MB",
		999_400: "999 kB", 999_600: "1.0 MB", 4_200_000_000: "4.2 GB", 5e15: "5000 TB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, wanted %q", n, got, want)
		}
	}
	if got := Rate(84.2e6); got != "84 MB/s" {
		t.Errorf("Rate = %q", got)
	}
}
