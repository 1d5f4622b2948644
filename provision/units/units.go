// Package units spells durations and amounts of data in one way, wherever the
// program shows or encodes them.
package units

import (
	"encoding/json"
	"fmt"
	"math"
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

// Number is the number of seconds, to the microsecond. It is the float nearest
// to that decimal, which time.Duration.Seconds, a sum, need not be: 1.590396
// would be written as 1.5903960000000001.
func (s Seconds) Number() float64 {
	return float64(time.Duration(s).Round(time.Microsecond).Microseconds()) / 1e6
}

// MarshalJSON writes seconds, to the microsecond.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, s.Number(), 'f', -1, 64), nil
}

// Ratio rounds a part of something to four places, for JSON.
func Ratio(part float64) float64 { return math.Round(part*1e4) / 1e4 }

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
