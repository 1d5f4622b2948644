package copies

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/test/s3server"
)

func s3At(s *s3server.Server, to string) inventory.BackupCopy {
	return inventory.BackupCopy{To: to, Endpoint: s.Endpoint, CAFile: s.CAFile, CredentialsFile: s.CredentialsFile}
}

// TestS3 is all that happens at a place, on a real server, and what goes wrong
// there. The backup is large enough to go in pieces.
func TestS3(t *testing.T) {
	s := s3server.New(t, "backups") // built with the tester's own caches
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("HOME", t.TempDir())
	p := opens(t, s3At(s, "s3://backups/some/prefix"))
	roundTrip(t, p, 20<<20)
	t.Run("without a prefix", func(t *testing.T) {
		p := opens(t, s3At(s, "s3://backups"))
		if _, err := p.Send(bg, made(t, t.TempDir(), aday, 0)); err != nil {
			t.Fatal(err)
		}
		if found, err := p.List(bg, "prod"); err != nil || len(found) != 1 {
			t.Errorf("%v, %v", found, err)
		}
	})
	t.Run("no such bucket", func(t *testing.T) {
		p := opens(t, s3At(s, "s3://nobodys/x"))
		if _, err := p.Send(bg, made(t, t.TempDir(), aday, 0)); err == nil || !strings.Contains(err.Error(), "there is no bucket nobodys") {
			t.Errorf("%v", err)
		}
		if _, err := p.List(bg, "prod"); err == nil || !strings.Contains(err.Error(), "there is no bucket nobodys") {
			t.Errorf("%v", err)
		}
	})
	t.Run("wrong credentials", func(t *testing.T) {
		c := s3At(s, "s3://backups/x")
		c.CredentialsFile = ""
		t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
		t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
		_, err := opens(t, c).Send(bg, made(t, t.TempDir(), aday, 0))
		if err == nil || !strings.Contains(err.Error(), "refuses the credentials of AWS_ACCESS_KEY_ID") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	})
	t.Run("keys that are carried elsewhere", func(t *testing.T) {
		c := s3At(s, "s3://backups/carried")
		c.CredentialsFile = ""
		t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
		t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey)
		keys, from, ca, err := BucketKeys(c, "")
		if err != nil || !strings.Contains(from, "environment") {
			t.Fatalf("%q, %v", from, err)
		}
		t.Setenv("AWS_SESSION_TOKEN", "for-an-hour")
		if _, _, _, err := BucketKeys(c, ""); err == nil || !strings.Contains(err.Error(), "temporary") || strings.Contains(err.Error(), s.SecretKey) {
			t.Errorf("with a token: %v", err)
		}
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		dir := t.TempDir()
		for name, content := range map[string][]byte{"keys": keys, "ca": ca} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c.CredentialsFile, c.CAFile = filepath.Join(dir, "keys"), filepath.Join(dir, "ca")
		if _, err := opens(t, c).List(bg, "prod"); err != nil {
			t.Error(err)
		}
		if again, _, _, err := BucketKeys(c, ""); err != nil || string(again) != string(keys) {
			t.Errorf("of what was carried: %v", err)
		}
	})
	t.Run("no credentials", func(t *testing.T) {
		c := s3At(s, "s3://backups/x")
		c.CredentialsFile = filepath.Join(t.TempDir(), "none")
		if _, err := Open(bg, c, ""); err == nil || !strings.Contains(err.Error(), "no credentials in "+c.CredentialsFile) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a certificate of nobody known", func(t *testing.T) {
		c := s3At(s, "s3://backups/x")
		c.CAFile = ""
		if _, err := opens(t, c).List(bg, "prod"); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
	})
	t.Run("the line is cut", func(t *testing.T) {
		p := opens(t, s3At(s, "s3://backups/cut"))
		e := made(t, t.TempDir(), aday, 20<<20)
		s.DropAfter(5 << 20)
		_, err := p.Send(bg, e)
		s.DropAfter(0)
		if err == nil {
			t.Fatal("it was sent over a line that was cut")
		}
		t.Log(err)
		if found, err := p.List(bg, "prod"); err != nil || len(found) != 0 {
			t.Errorf("%+v, %v", found, err)
		}
		if there, err := p.Send(bg, e); err != nil || there {
			t.Errorf("again: %v, %v", there, err)
		}
		here := t.TempDir()
		if r, err := p.Fetch(bg, "prod/"+backup.Name(aday), here, backup.Expected{}); err != nil || !r.Whole {
			t.Errorf("%+v, %v", r, err)
		}
		if left, err := os.ReadDir(filepath.Join(here, "prod")); err != nil || len(left) != 1 {
			t.Errorf("%v, %v", left, err)
		}
	})
}
