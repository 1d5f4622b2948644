package backup

import (
	"fmt"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Records reads the newest values of those keys of a snapshot that are wanted,
// and exist at its end. The snapshot was proved by Verify before: of a damaged
// one it returns an error, as Inspect does.
func Records(file string, wanted func(key string) bool) (values map[string][]byte, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errNoDatabase, r)
		}
	}()
	db, err := bbolt.Open(file, 0o400, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoDatabase, err)
	}
	defer db.Close()
	values = map[string][]byte{}
	err = db.View(func(tx *bbolt.Tx) error {
		keys := tx.Bucket(keyBucket)
		if keys == nil {
			return fmt.Errorf("%w: it has no bucket %q", errNoDatabase, keyBucket)
		}
		return keys.ForEach(func(k, v []byte) error { // in the order of revisions
			r, deleted, err := parseRecord(k)
			if err != nil {
				return err
			}
			var kv mvccpb.KeyValue // what it holds is its own: v is of the file
			if err := kv.Unmarshal(v); err != nil {
				return fmt.Errorf("%w: the record of revision %d: %w", errNoDatabase, r.main, err)
			}
			switch key := string(kv.Key); {
			case deleted:
				delete(values, key)
			case wanted(key):
				values[key] = kv.Value
			}
			return nil
		})
	})
	return values, err
}
