package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// insideEnv marks the process that is in namespaces of its own.
const insideEnv = "AUTHD_CHAOS_INSIDE"

// inside says whether this process may make networks and mounts as it likes.
func inside() bool { return os.Getenv(insideEnv) != "" }

// reenter runs this program again as the first process of its own network,
// process and mount namespaces: the kernel undoes what it made when it ends,
// however it ends. It returns the program's exit status.
func reenter(stdout, stderr *os.File, plain bool) (int, error) {
	if os.Getuid() != 0 && !plain {
		return 1, errors.New("entering namespaces: faults of disks need loop mounts, and they need root: run as root, or with -plain")
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.Stdout, c.Stderr = stdout, stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS, // and mounts private, so that none leaks
		Pdeathsig:    syscall.SIGTERM,
	}
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err := c.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// settle makes a place of our own where ip keeps named network namespaces.
func settle() error {
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	return os.Mkdir("/run/netns", 0o755)
}

// run runs a program to its end.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// The network: a bridge that the nodes and this process are on.
const (
	bridge     = "chaos0"
	ownAddress = "192.0.2.1" // RFC 5737
)

// address of node i, and of its network card.
func address(i int) string { return fmt.Sprintf("192.0.2.1%d", i) }
func mac(i int) string     { return fmt.Sprintf("02:00:00:00:02:1%d", i) }

// nobody is a network card that is not there: what is sent to it is lost without
// a word, as in a network that is cut.
const nobody = "02:00:00:00:ff:ff"

// buildNetwork makes the bridge and one namespace a node. Who has which card is
// written down on both sides, so that a cut is one entry changed.
func buildNetwork(nodes int) error {
	steps := [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", bridge, "type", "bridge"},
		{"addr", "add", ownAddress + "/24", "dev", bridge},
		{"link", "set", bridge, "up"},
	}
	for i := 1; i <= nodes; i++ {
		ns, outside := netns(i), fmt.Sprintf("chaos%d", i)
		steps = append(steps,
			[]string{"netns", "add", ns},
			[]string{"link", "add", outside, "type", "veth", "peer", "name", "eth0", "address", mac(i), "netns", ns},
			[]string{"link", "set", outside, "master", bridge, "up"},
			[]string{"-n", ns, "link", "set", "lo", "up"},
			[]string{"-n", ns, "addr", "add", address(i) + "/24", "dev", "eth0"},
			[]string{"-n", ns, "link", "set", "eth0", "up"},
		)
	}
	for _, s := range steps {
		if err := run("ip", s...); err != nil {
			return err
		}
	}
	for i := 1; i <= nodes; i++ {
		for j := 1; j <= nodes; j++ {
			if i != j {
				if err := neighbour(i, j, mac(j)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func netns(i int) string { return fmt.Sprintf("node%d", i) }

// neighbour says to which card node "from" sends what is for node "to".
func neighbour(from, to int, card string) error {
	return run("ip", "-n", netns(from), "neigh", "replace", address(to), "lladdr", card, "nud", "permanent", "dev", "eth0")
}

// cut loses everything that goes from one node to another, without a word to
// either; the other direction is as it was.
func cut(from, to int) error { return neighbour(from, to, nobody) }

// join undoes cut.
func join(from, to int) error { return neighbour(from, to, mac(to)) }
