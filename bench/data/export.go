//go:build lab

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"authd/zone"
)

// export writes every zone as authd serves it, in the text of RFC 1035 section 5.
// Names of the platform zone that belong to domains go into its file.
func (w *world) export() error {
	if err := os.MkdirAll(filepath.Join(w.dir, "zones", "d"), 0o755); err != nil {
		return err
	}
	f, err := os.Create(w.zoneFile(apex))
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	if err := w.exportPlatform(out); err != nil {
		return err
	}
	for d := range w.machine.Domains([16]byte{}) {
		sets := w.machine.Served(d)
		if len(sets) == 0 {
			return fmt.Errorf("%s: nothing is served", d.Name)
		}
		if err := w.exportZone(d.Name, sets, out, d.Mode == zone.Delegated); err != nil {
			return err
		}
	}
	return errors.Join(out.Flush(), f.Close())
}

// exportPlatform writes the head of the platform zone, as zone.RenderPlatform
// makes it; bench/agree holds authd to it.
func (w *world) exportPlatform(out *bufio.Writer) error {
	p, ok := w.machine.Platform(name(apex))
	if !ok {
		return errors.New("no platform zone")
	}
	fmt.Fprintf(out, "%[1]s. %[2]d IN SOA ns1.%[1]s. %[3]s %[4]d 7200 1800 1209600 %[5]d\n", apex, zone.TTLSOA, p.Contact, p.Serial, zone.TTLNegative)
	for s := range w.machine.NameServers() {
		fmt.Fprintf(out, "%[1]s. %[2]d IN NS %[3]s.%[1]s.\n", apex, zone.TTLNS, s.Label)
		for _, a := range s.Addresses {
			t := "A"
			if a.Is6() {
				t = "AAAA"
			}
			fmt.Fprintf(out, "%s.%s. %d IN %s %s\n", s.Label, apex, zone.TTLServer, t, a)
		}
	}
	for _, s := range p.Records {
		writeSet(out, s)
	}
	return nil
}

// exportZone writes the RRsets of a domain: its own zone into a file, what is in
// the platform zone to platform.
func (w *world) exportZone(apex zone.Name, sets []zone.RRset, platform *bufio.Writer, delegated bool) error {
	if !delegated {
		for _, s := range sets {
			writeSet(platform, s)
		}
		return nil
	}
	f, err := os.Create(w.zoneFile(apex.Host()))
	if err != nil {
		return err
	}
	defer f.Close()
	own := bufio.NewWriterSize(f, 8<<10)
	// The SOA comes first: pdns and nsd want it there.
	for _, first := range []bool{true, false} {
		for _, s := range sets {
			switch {
			case (s.Type == zone.TypeSOA) != first:
			case s.Owner.In(apex):
				writeSet(own, s)
			default:
				writeSet(platform, s)
			}
		}
	}
	return errors.Join(own.Flush(), f.Close())
}

func writeSet(out *bufio.Writer, s zone.RRset) {
	for _, v := range s.Values() {
		fmt.Fprintf(out, "%s %d IN %s %s\n", s.Owner, s.TTL, s.Type, v)
	}
}

func (w *world) zoneFile(z string) string {
	if z == apex {
		return filepath.Join(w.dir, "zones", apex+".zone")
	}
	return filepath.Join(w.dir, "zones", "d", z+".zone")
}
