package hostile

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/zfs"
)

// placesEnv is the dataset in which places have theirs.
const placesEnv = "JETPACK_TEST_ZFS_PLACES"

func init() {
	drivers["zfs"] = driver{
		open: func(dir string) (storage.Driver, error) {
			dataset := os.Getenv(placesEnv) + "/" + filepath.Base(filepath.Dir(dir))
			if _, err := zfs.Init(context.Background(), dataset, "12345678", dir); err != nil {
				return nil, err
			}
			return zfs.Open(dataset, dir)
		},
		supported: func(string) error {
			if os.Getenv(placesEnv) == "" {
				return errors.New("there is none for tests")
			}
			return nil
		},
	}
}

// useZFS lasts as long as the test.
func useZFS(t *testing.T) {
	t.Helper()
	dataset := testenv.Dataset(t)
	if dataset == "" {
		return
	}
	if out, err := exec.Command("zfs", "create", "-o", "mountpoint=none", dataset).CombinedOutput(); err != nil {
		t.Fatalf("zfs create: %v: %s", err, out)
	}
	t.Setenv(placesEnv, dataset)
}
