package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk is a file system of a node's own, in a file: it can be filled, frozen,
// and cut from power without touching the machine's.
type disk struct {
	image, dir string // no image: a directory like any other, which cannot fail
	mounted    bool
	frozen     bool
}

// diskSize is small, so that filling it is quick; the image is sparse.
const diskSize = 192 << 20

// newDisk makes a file system in dir.img and mounts it at dir; a plain one is dir.
func newDisk(dir string, plain bool) (*disk, error) {
	d := &disk{image: dir + ".img", dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if plain {
		d.image = ""
		return d, nil
	}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.Truncate(diskSize), f.Close())
	if err != nil {
		return nil, err
	}
	if err := run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.image); err != nil {
		return nil, err
	}
	return d, d.mount()
}

func (d *disk) mount() error {
	if err := run("mount", "-o", "loop,noatime", d.image, d.dir); err != nil {
		return err
	}
	d.mounted = true
	return nil
}

func (d *disk) unmount() error {
	if !d.mounted {
		return nil
	}
	if err := d.thaw(); err != nil {
		return err
	}
	if err := unix.Unmount(d.dir, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", d.dir, err)
	}
	d.mounted = false
	return nil
}

// Requests of ioctl_fs(2): freeze, thaw, and the one that file systems are
// tested with against a loss of power.
const (
	ioctlFreeze   = 0xc0045877
	ioctlThaw     = 0xc0045878
	ioctlShutdown = 0x8004587d

	// noLogFlush: what is not on the disk at this moment never gets there.
	noLogFlush = 2
)

func (d *disk) ioctl(request uintptr, argument uint32) error {
	if d.image == "" {
		return errors.New("a plain directory cannot fail: run without -plain")
	}
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&argument)))
	if errno != 0 {
		return errno
	}
	return nil
}

// freeze lets every write and sync hang.
func (d *disk) freeze() error {
	if err := d.ioctl(ioctlFreeze, 0); err != nil {
		return fmt.Errorf("freezing %s: %w", d.dir, err)
	}
	d.frozen = true
	return nil
}

func (d *disk) thaw() error {
	if !d.frozen {
		return nil
	}
	if err := d.ioctl(ioctlThaw, 0); err != nil {
		return fmt.Errorf("thawing %s: %w", d.dir, err)
	}
	d.frozen = false
	return nil
}

// fail makes every further write and sync an error (EIO), and loses what was
// written and not synced: a disk that broke, or lost power.
func (d *disk) fail() error {
	if err := d.ioctl(ioctlShutdown, noLogFlush); err != nil {
		return fmt.Errorf("failing %s: %w", d.dir, err)
	}
	return nil
}

// repair mounts anew a disk that failed, once no process uses it.
func (d *disk) repair() error {
	if err := d.unmount(); err != nil {
		return err
	}
	return d.mount()
}

// remove ends the disk.
func (d *disk) remove() error {
	if d.image == "" {
		return os.RemoveAll(d.dir)
	}
	return errors.Join(d.unmount(), os.Remove(d.image))
}

func (d *disk) filler() string { return filepath.Join(d.dir, "filler") }

// fill takes all the room there is.
func (d *disk) fill() error {
	if d.image == "" {
		return errors.New("a plain directory cannot be filled: run without -plain")
	}
	f, err := os.Create(d.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	for step := int64(16 << 20); step >= 4096; {
		end, err := f.Seek(0, 2)
		if err != nil {
			return err
		}
		switch err := unix.Fallocate(int(f.Fd()), 0, end, step); {
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case err != nil:
			return fmt.Errorf("filling %s: %w", d.dir, err)
		default:
			if _, err := f.Seek(0, 2); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *disk) drain() error {
	if err := os.Remove(d.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
