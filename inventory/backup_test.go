package inventory

import (
	"strings"
	"testing"
	"time"
)

const aRecipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

func TestBackup(t *testing.T) {
	with := func(fields string) string { return "  backup: {" + fields + "}\n  software:\n" }
	for _, r := range []row{
		{name: "a schedule", with: with("schedule: 6h, recipients: [" + aRecipient + "]")},
		{name: "a schedule without recipients", with: with("schedule: 6h"),
			want: "f:26:3: warning: spec.backup: scheduled backups will hold no keys: neither the CA set nor the key of the encryption at rest; list age recipients in spec.backup.recipients"},
		{name: "recipients alone", with: with("recipients: [" + aRecipient + "]")},
		{name: "no duration", with: with("schedule: daily, recipients: [" + aRecipient + "]"),
			want: `f:26:22: spec.backup.schedule: "daily" is not a duration; want a time between backups, such as 6h or 24h: from 1m to 744h, in whole seconds`},
		{name: "too short, and nothing kept", with: with("schedule: 30s, keep: 0, recipients: [" + aRecipient + "]"),
			want: `f:26:22: spec.backup.schedule: 30s is not possible; want a time between backups, such as 6h or 24h: from 1m to 744h, in whole seconds
f:26:33: spec.backup.keep: 0 backups; want 1 or more`},
		{name: "kept without a schedule", with: with("keep: 3"), want: `f:26:18: spec.backup.keep: nothing is made to be kept; set spec.backup.schedule, too`},
		{name: "recipients that are none", with: with("schedule: 6h, recipients: [AGE-SECRET-KEY-1ABC, age1x]"),
			want: `f:26:39: spec.backup.recipients[0]: a secret key; want the public half, age1...; the secret one has no place here
f:26:60: spec.backup.recipients[1]: not a recipient of age; want what age-keygen calls the public key, age1...`},
	} {
		r.old = "  software:\n"
		r.run(t)
	}
}

func TestBackupDefaults(t *testing.T) {
	c := mustParse(t, "f", edit(t, base, "  software:\n", "  backup: {schedule: 90m, recipients: ["+aRecipient+"]}\n  software:\n"))
	if b := c.Spec.Backup; b.Keep != DefaultBackupKeep || b.Every() != 90*time.Minute {
		t.Errorf("%+v", b)
	}
	if b := mustParse(t, "f", base).Spec.Backup; b.Keep != 0 || b.Every() != 0 || len(b.Recipients) != 0 {
		t.Errorf("of an inventory without: %+v", b)
	}
	if strings.Contains(string(schemaBytes(t)), "backupSource") {
		t.Error("the schema has what is no field")
	}
}
