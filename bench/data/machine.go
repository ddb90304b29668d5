//go:build lab

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// Names and sizes of the world.
const (
	apex    = "platform.test"
	tenants = 1000
	pools   = 16
	batch   = 128 // claims a log entry
)

// customer is what the questions need to know of a domain.
type customer struct {
	token     state.Token
	selectors [2]string // of a delegated domain: active, standby
}

// world is the machine while it grows, as a cluster's leader would make it.
type world struct {
	options
	machine   state.Machine
	founded   state.Machine // before the first domain
	index     uint64
	at        int64
	random    *rand.Rand
	entropy   *rand.ChaCha8
	keeper    keys.Keeper
	source    keys.Source
	customers []customer // CNAME customers, then delegated domains
}

func newWorld(o options) (*world, error) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], o.seed)
	w := &world{options: o, machine: state.Empty(), at: time.Now().Unix(), entropy: rand.NewChaCha8(seed)}
	w.random = rand.New(w.entropy)
	var err error
	if w.keeper, err = keys.OpenKeeper(filepath.Join(o.cluster, "kek")); err != nil {
		return nil, err
	}
	w.source, _ = keys.LabSource(o.seed)
	token, err := os.ReadFile(filepath.Join(o.cluster, "admin.token"))
	if err != nil {
		return nil, err
	}
	return w, w.found(bytes.TrimSpace(token))
}

// found makes all that is there before the first domain.
func (w *world) found(token []byte) error {
	hash := sha256.Sum256(token)
	commands := []state.Command{
		state.SetSettings{Settings: state.Settings{ClusterID: "bench", VerificationOff: true}},
		state.AddAccessToken{Access: state.AccessToken{ID: "bench", Hash: hash, Scope: state.ScopeAdmin, CreatedAt: w.at}},
		state.PutPlatform{Apex: name(apex), Contact: name("hostmaster." + apex)},
		state.PutNameServer{Label: "ns1", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}},
		state.PutNameServer{Label: "ns2", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8::2")}},
	}
	for i, host := range []string{"mx1", "mx2"} {
		set, err := zone.ParseRRset(name(host+"."+apex), zone.TypeA, 3600, []string{fmt.Sprintf("198.51.100.%d", 11+i)})
		if err != nil {
			return err
		}
		commands = append(commands, state.PutRecord{Apex: name(apex), Set: set})
	}
	for i := range pools {
		commands = append(commands, state.PutPool{ID: pool(i), Spec: state.PoolSpec{
			SPF: []string{fmt.Sprintf("ip4:198.51.100.%d/28", i*16)}, SPFAll: "~all",
			MX:     []zone.MX{{Preference: 10, Host: name("mx1." + apex)}, {Preference: 20, Host: name("mx2." + apex)}},
			ClickA: []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8:113::%x", i+1))},
			Policy: keys.DefaultPolicy(),
		}})
	}
	for i := range tenants {
		commands = append(commands, state.AddTenant{ID: tenant(i), Name: tenant(i)})
	}
	for len(commands) > 0 {
		n := min(len(commands), batch)
		if err := w.apply(commands[:n]); err != nil {
			return err
		}
		commands = commands[n:]
	}
	return nil
}

func pool(i int) string   { return fmt.Sprintf("pool%d", i%pools) }
func tenant(i int) string { return fmt.Sprintf("tenant%d", i%tenants) }

// name parses a name that the program itself made.
func name(text string) zone.Name {
	n, err := zone.ParseName(text)
	if err != nil {
		panic(err)
	}
	return n
}

// apply applies commands as one log entry; none may be refused.
func (w *world) apply(commands []state.Command) error {
	entries := make([]state.Entry, len(commands))
	for i, c := range commands {
		entries[i] = state.Entry{At: w.at, Actor: "bench", Command: c}
	}
	w.index++
	next, results, _ := w.machine.Apply(w.index, entries)
	for i, r := range results {
		if r.Refusal != nil {
			return fmt.Errorf("%T refused: %w", commands[i], r.Refusal)
		}
	}
	w.machine = next
	return nil
}

// populate claims every domain and confirms its standby, as the cluster would
// have done within the minute: an idle cluster has nothing due.
func (w *world) populate() error {
	w.founded = w.machine
	total := w.cnames + w.delegated
	w.customers = make([]customer, 0, total)
	for i := 0; i < total; {
		var claims, confirms, activations, thirds []state.Command
		for ; i < total && len(claims) < batch; i++ {
			claim, err := w.claim(i)
			if err != nil {
				return err
			}
			claims = append(claims, claim)
			confirms = append(confirms, state.StepKey{
				Token: claim.Token,
				Step:  keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: claim.Standby[0].ID},
			})
			activations = append(activations, state.StepKey{
				Token: claim.Token, Manual: true,
				Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: claim.Standby[0].ID},
			})
			third, err := w.third(claim)
			if err != nil {
				return err
			}
			thirds = append(thirds, third)
		}
		if err := w.apply(claims); err != nil {
			return err
		}
		if err := w.apply(confirms); err != nil {
			return err
		}
		if !w.bare {
			continue // questions ask for the first two keys alone
		}
		if err := w.apply(activations); err != nil {
			return err
		}
		if err := w.apply(thirds); err != nil {
			return err
		}
		for k := range confirms {
			c := confirms[k].(state.StepKey)
			c.Step.Key = 3
			confirms[k] = c
		}
		if err := w.apply(confirms); err != nil {
			return err
		}
	}
	return nil
}

// third publishes a third key: draining, active and standby, as most domains have
// after their first rotation.
func (w *world) third(claim state.AddDomain) (state.StepKey, error) {
	c := state.StepKey{Token: claim.Token, Step: keys.Step{Kind: keys.StepPublish, Algorithm: keys.RSA2048}}
	if !w.bare {
		return c, nil
	}
	selector := "k3"
	if claim.Mode == zone.Delegated {
		var err error
		if selector, err = keys.MintSelector(w.entropy, time.Unix(w.at, 0)); err != nil {
			return c, err
		}
	}
	m, err := w.key(claim.Token, 3, selector)
	c.Material = &m
	return c, err
}

// claim makes the i-th domain: CNAME customers come first.
func (w *world) claim(i int) (state.AddDomain, error) {
	c := state.AddDomain{Mode: zone.CNAME, Tenant: tenant(i), Pool: pool(i)}
	if _, err := io.ReadFull(w.entropy, c.Token[:]); err != nil {
		return c, err
	}
	c.Registrable = name(fmt.Sprintf("k%07d.test", i))
	c.Name = c.Registrable
	selectors := [2]string{"k1", "k2"}
	if i >= w.cnames {
		c.Mode = zone.Delegated
		c.Name = name(zoneOf(i - w.cnames))
		c.Registrable = c.Name.Parent()
		for j := range selectors {
			var err error
			if selectors[j], err = keys.MintSelector(w.entropy, time.Unix(w.at, 0)); err != nil {
				return c, err
			}
		}
	}
	c.DMARC = fmt.Sprintf("v=DMARC1; p=none; rua=mailto:%s@reports.test", c.Token)
	active, err := w.key(c.Token, 1, selectors[0])
	if err != nil {
		return c, err
	}
	standby, err := w.key(c.Token, 2, selectors[1])
	if err != nil {
		return c, err
	}
	c.Active, c.Standby = []keys.Material{active}, []keys.Material{standby}
	w.customers = append(w.customers, customer{token: c.Token, selectors: selectors})
	return c, nil
}

func zoneOf(i int) string { return fmt.Sprintf("em.c%07d.test", i) }

// key seals a pair of the lab for its place, as a node would.
func (w *world) key(t state.Token, id uint32, selector string) (keys.Material, error) {
	p, err := w.source.Take(context.Background(), keys.RSA2048)
	if err != nil {
		return keys.Material{}, err
	}
	sealed, err := w.keeper.Seal(w.entropy, keys.Binding{Token: t.String(), Selector: selector, KeyID: id}, p.Compact())
	if err != nil {
		return keys.Material{}, err
	}
	return keys.Material{Algorithm: keys.RSA2048, Selector: selector, ID: id, Sealed: sealed, Payload: p.Payload()}, nil
}
