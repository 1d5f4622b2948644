// Package units spells durations and amounts of data in one way, wherever the
// program shows or encodes them.
package units

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Seconds is a duration that is a number of seconds in JSON. The names of such
// fields end in "Seconds".
type Seconds time.Duration

// Duration is the same as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// String reads as time.Duration's does.
func (s Seconds) String() string { return time.Duration(s).String() }

// MarshalJSON writes seconds, to the microsecond.
func (s Seconds) MarshalJSON() ([]byte, error) {
	rounded := time.Duration(s).Round(time.Microsecond).Seconds()
	return strconv.AppendFloat(nil, rounded, 'f', -1, 64), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Seconds) UnmarshalJSON(data []byte) error {
	var f float64
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("a duration in seconds: %w", err)
	}
	*s = Seconds(time.Duration(f * float64(time.Second)).Round(time.Microsecond))
	return nil
}

// Bytes reads "312 MB": decimal multiples, as disks and networks are sold.
func Bytes(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, names := float64(n)/unit, "kMGT"
	for f >= 999.5 && len(names) > 1 {
		f, names = f/unit, names[1:]
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %cB", f, names[0])
	}
	return fmt.Sprintf("%.0f %cB", f, names[0])
}

// Rate reads "84 MB/s".
func Rate(bytesPerSecond float64) string { return Bytes(int64(bytesPerSecond)) + "/s" }
