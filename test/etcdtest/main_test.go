package etcdtest

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets more clusters wait at once than there are cores: the tests
// spend their time in election timeouts.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
