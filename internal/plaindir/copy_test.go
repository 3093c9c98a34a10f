package plaindir

import (
	"syscall"
	"testing"
)

// Only a device has a device number, whatever stat(2) says of others.
func TestMknod(t *testing.T) {
	device := syscall.Stat_t{Mode: syscall.S_IFCHR | 0o600, Rdev: 259}
	disk := syscall.Stat_t{Mode: syscall.S_IFBLK | 0o600, Rdev: 259}
	fifo := syscall.Stat_t{Mode: syscall.S_IFIFO | 0o600, Rdev: 259}
	socket := syscall.Stat_t{Mode: syscall.S_IFSOCK | 0o600, Rdev: 259}
	for st, want := range map[*syscall.Stat_t]int{&device: 259, &disk: 259, &fifo: 0, &socket: 0} {
		err := mknod(func(_ string, mode uint32, dev int) error {
			if dev != want || mode != uint32(st.Mode) {
				t.Errorf("mode %o: made with %o, device %d; want device %d", st.Mode, mode, dev, want)
			}
			return nil
		}, "x", st)
		if err != nil {
			t.Error(err)
		}
	}
}
