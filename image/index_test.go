package image

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// An entry of the index may be anything after a disk's fault: it is an image or
// damaged, and its ID is the key that it stands under.
func FuzzDecode(f *testing.F) {
	id := "sha512-" + strings.Repeat("0a", 64)
	entry := `{"id":"` + id + `","manifest":{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a","dependencies":[{"imageName":"example.com/b"}]},"dependencies":["` + id + `"]}`
	f.Add([]byte(id), []byte(entry))
	f.Add([]byte("../x"), []byte(strings.ReplaceAll(entry, id, "../x")))
	f.Add([]byte(id), []byte(entry[:len(entry)/2]))
	f.Add([]byte(id), []byte(`null`))
	f.Add([]byte(id), []byte(`{"id":"`+id+`"}`))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		img, err := decode(key, value)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("not ErrDamaged: %v", err)
			}
			return
		}
		if _, err := ParseID(string(key)); err != nil || !bytes.Equal(key, []byte(img.ID)) {
			t.Errorf("key %q holds image %q", key, img.ID)
		}
		if img.Name() == "" || img.Parsed() == nil || img.Label("version") == "\x00" {
			t.Errorf("an image without name or manifest: %+v", img)
		}
	})
}
