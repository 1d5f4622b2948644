package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/probe"
)

// upgradeRun is a run of upgrade in short: the second master leads etcd and goes
// last, the worker after it.
var upgradeRun = []string{
	"0 started stage cp-1", "5 finished stage cp-1",
	"10 started drain cp-1", "12 finished drain cp-1", "12 started upgrade cp-1", "30 finished upgrade cp-1",
	"30 started readmit cp-1", "32 finished readmit cp-1", "32 started uncordon cp-1", "33 finished uncordon cp-1",
	"33 started drain cp-3", "34 finished drain cp-3", "34 started upgrade cp-3", "60 finished upgrade cp-3",
	"60 started uncordon cp-3", "61 finished uncordon cp-3",
	"61 started drain cp-2", "62 finished drain cp-2", "62 started upgrade cp-2", "90 finished upgrade cp-2",
	"90 started uncordon cp-2", "91 finished uncordon cp-2",
	"91 started addons -", "95 finished addons -",
	"95 started drain w-1", "99 finished drain w-1", "99 started uncordon w-1", "100 finished uncordon w-1",
}

func TestMastersTurns(t *testing.T) {
	turns, span, err := mastersTurns(events(t, upgradeRun...), masters)
	if err != nil {
		t.Fatal(err)
	}
	if want := 81 * time.Second; span != want {
		t.Errorf("all three took %s, want %s: the sending before and the worker after do not count", span, want)
	}
	want := []step{{"cp-1", 23 * time.Second}, {"cp-3", 28 * time.Second}, {"cp-2", 30 * time.Second}}
	if fmt.Sprint(turns) != fmt.Sprint(want) {
		t.Errorf("turns = %v, want %v", turns, want)
	}
}

func TestARunThatFoundAMasterUpgradedIsNotMeasured(t *testing.T) {
	all := events(t, upgradeRun...)
	for i := range all {
		skip(&all[i], "uncordon", "cp-3")
	}
	if turns, _, err := mastersTurns(all, masters); err == nil {
		t.Errorf("it was measured: %v", turns)
	}
}

func TestAcknowledgedWritesThatAnUpgradeLostAreAnError(t *testing.T) {
	u := rides{hand: ride{fresh: probe.Report{Lost: []int{7}}}}
	if err := (result{rides: []rides{u}}).lost(); err == nil {
		t.Error("a measurement of an upgrade that lost a write is no error")
	}
	if err := (result{rides: []rides{{}}}).lost(); err != nil {
		t.Error(err)
	}
}
