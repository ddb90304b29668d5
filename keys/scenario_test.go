package keys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The format of testdata/rotations is told in its README.

const minScenarios = 12

func TestRotations(t *testing.T) {
	files, err := filepath.Glob("../testdata/rotations/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < minScenarios {
		t.Fatalf("%d scenarios found, want at least %d", len(files), minScenarios)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &scenario{start: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Unix(), policy: DefaultPolicy(), evidence: Evidence{Complete: true}}
			s.now = s.start
			for i, line := range strings.Split(string(text), "\n") {
				line, _, _ = strings.Cut(line, "#")
				if err := s.line(strings.TrimSpace(line)); err != nil {
					t.Fatalf("%s:%d: %s: %v", file, i+1, strings.TrimSpace(line), err)
				}
			}
			if s.expectations == 0 {
				t.Errorf("%s expects nothing", file)
			}
		})
	}
}

type scenario struct {
	start, now   int64
	policy       Policy
	ring         Ring
	algorithms   []Algorithm
	expectations int
	evidence     Evidence // complete and silent until a line says otherwise
}

func (s *scenario) line(line string) error {
	if line == "" {
		return nil
	}
	words := strings.Fields(line)
	switch words[0] {
	case "expect":
		s.expectations++
		return s.expect(words[1:])
	case "refused":
		s.expectations++
		return s.refused(strings.TrimPrefix(line, "refused"))
	case "at":
		then, err := parseOffset(words[1])
		if err != nil {
			return err
		}
		if s.start+then < s.now {
			return errors.New("time does not go back")
		}
		s.now = s.start + then
		return nil
	}
	return s.do(words)
}

// refused reads "[until +TIME] COMMAND [| WORDS]".
func (s *scenario) refused(rest string) error {
	command, want, _ := strings.Cut(rest, "|")
	words := strings.Fields(command)
	var until int64
	if words[0] == "until" {
		offset, err := parseOffset(words[1])
		if err != nil {
			return err
		}
		until, words = s.start+offset, words[2:]
	}
	before := s.ring.Append(nil)
	err := s.do(words)
	if err == nil {
		return errors.New("it was not refused")
	}
	if !bytes.Equal(before, s.ring.Append(nil)) {
		return errors.New("it was refused and changed the ring")
	}
	if want = strings.TrimSpace(want); !strings.Contains(err.Error(), want) {
		return fmt.Errorf("refused with %q, want %q", err, want)
	}
	var early *NotReady
	if until != 0 && !errors.As(err, &early) {
		return fmt.Errorf("refused with %q, which names no time", err)
	}
	if until != 0 && early.At != until {
		return fmt.Errorf("refused until %s, want %s", s.offset(early.At), s.offset(until))
	}
	return nil
}

func (s *scenario) do(words []string) error {
	var next Ring
	var err error
	switch words[0] {
	case "policy":
		return s.setPolicy(words[1:])
	case "check":
		return s.policy.Check(words[1] == "slots")
	case "evidence":
		return s.setEvidence(words[1:])
	case "ring":
		next, err = s.startRing(words[1:])
	case "step":
		next, err = s.step(words[1:])
	case "run":
		next, err = s.run(words[1:])
	case "revoke":
		anyway := words[1] == "anyway"
		key, ok := s.ring.BySelector(words[len(words)-1])
		if !ok {
			return errors.New("no such key")
		}
		next, err = s.ring.revokeKey(key.ID, s.now, anyway)
	case "emergency", "burn":
		next, err = s.emergency(words[1:], words[0] == "burn")
	case "renew", "drill":
		var a Algorithm
		switch a, err = ParseAlgorithm(words[1]); {
		case err != nil:
		case words[0] == "drill":
			next, err = s.ring.Drill(a, 0, s.now)
		default:
			next, err = s.ring.Renew(a, s.now, s.policy)
		}
	case "leave":
		next = s.ring.Retire(s.now)
	case "restore":
		var material []Material
		for _, word := range words[1:] {
			a, err := ParseAlgorithm(word)
			if err != nil {
				return err
			}
			material = append(material, s.material(s.ring, a, len(material)))
		}
		next, err = s.ring.Revive(s.now, s.algorithms, material)
	default:
		return errors.New("unknown command")
	}
	if err != nil {
		return err
	}
	s.ring = next
	return s.recode()
}

// emergency reads "ALGORITHM FATE [SELECTOR]".
func (s *scenario) emergency(words []string, burn bool) (Ring, error) {
	a, err := ParseAlgorithm(words[0])
	if err != nil {
		return Ring{}, err
	}
	var from uint32
	if len(words) == 3 {
		key, ok := s.ring.BySelector(words[2])
		if !ok {
			return Ring{}, errors.New("no such key")
		}
		from = key.ID
	}
	old := FateDrain
	for old.known() && words[1] != old.String() {
		old++
	}
	if !old.known() {
		return Ring{}, fmt.Errorf("unknown fate %q", words[1])
	}
	if burn {
		return s.ring.Burn(a, from, old, s.now)
	}
	return s.ring.Emergency(a, from, old, s.now)
}

// recode sends the ring through its encoded form, as every command of the machine does.
func (s *scenario) recode() error {
	encoded := s.ring.Append(nil)
	again, err := DecodeRing(string(encoded), func(selector string) string {
		k, _ := s.ring.BySelector(selector)
		return k.Payload
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(again.Append(nil), encoded) {
		return errors.New("the ring does not encode to the same bytes again")
	}
	s.ring = again
	return nil
}

func (s *scenario) setPolicy(words []string) error {
	before := s.policy
	fields := map[string]*time.Duration{
		"period": &s.policy.Period, "soak": &s.policy.Soak, "rollback": &s.policy.Rollback,
		"signer_hold": &s.policy.SignerHold, "drain_floor": &s.policy.DrainFloor, "drain": &s.policy.Drain,
		"drain_ceiling": &s.policy.DrainCeiling, "revoked_for": &s.policy.RevokedFor, "quiet": &s.policy.Quiet,
	}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		if fields[name] == nil {
			return fmt.Errorf("unknown field %q", name)
		}
		span, err := parseOffset("+" + value)
		if err != nil {
			return err
		}
		*fields[name] = time.Duration(span) * time.Second
	}
	if len(s.ring.Keys) > 0 {
		s.policy = s.policy.After(before, s.now)
	}
	return nil
}

// setEvidence reads "[unknown] [switched] [asked=TIME] [handed=TIME]".
func (s *scenario) setEvidence(words []string) error {
	s.evidence = Evidence{Complete: true}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "unknown":
			s.evidence.Complete = false
			continue
		case "switched":
			s.evidence.Switched = true
			continue
		}
		offset, err := parseOffset(value)
		if err != nil {
			return err
		}
		switch name {
		case "asked":
			s.evidence.AskedAt = s.start + offset
		case "handed":
			s.evidence.HandedOutAt = s.start + offset
		default:
			return fmt.Errorf("unknown evidence %q", name)
		}
	}
	return nil
}

// startRing reads "MODE ALGORITHM… [without standby] [jitter=N]".
func (s *scenario) startRing(words []string) (Ring, error) {
	mode := Minted
	if words[0] == "slots" {
		mode = Slots
	}
	var jitter int16
	standby := true
	for _, word := range words[1:] {
		if value, ok := strings.CutPrefix(word, "jitter="); ok {
			number, err := strconv.ParseInt(value, 10, 16)
			if err != nil {
				return Ring{}, err
			}
			jitter = int16(number)
			continue
		}
		if word == "without" || word == "standby" {
			standby = false
			continue
		}
		a, err := ParseAlgorithm(word)
		if err != nil {
			return Ring{}, err
		}
		s.algorithms = append(s.algorithms, a)
	}
	var active, ready []Material
	empty := Ring{Mode: mode, NextID: 1}
	for i, a := range s.algorithms {
		active = append(active, s.material(empty, a, i))
	}
	for i, a := range s.algorithms {
		if standby {
			ready = append(ready, s.material(empty, a, len(active)+i))
		}
	}
	if mode == Slots {
		for i := range active {
			active[i].Selector = ""
		}
		for i := range ready {
			ready[i].Selector = ""
		}
	}
	return Start(mode, jitter, s.now, active, ready)
}

// material is what the key gets whose ID is so many past the ring's next: the
// payload "…p=key7", and in minted mode the selector s7.
func (s *scenario) material(r Ring, a Algorithm, ahead int) Material {
	id := r.NextID + uint32(ahead)
	m := Material{Algorithm: a, ID: id, Sealed: fmt.Appendf(nil, "sealed %d", id), Payload: fmt.Sprintf("%skey%d", RevokedPayload(a), id)}
	if r.Mode == Minted {
		m.Selector = fmt.Sprintf("s%d", id)
	}
	return m
}

// step takes the next step, which must be due, or the one named.
func (s *scenario) step(words []string) (Ring, error) {
	if len(words) == 0 {
		next, due, ok := s.ring.Next(s.policy)
		if !ok {
			return Ring{}, errors.New("no step is planned")
		}
		if due > s.now {
			return Ring{}, fmt.Errorf("%s %s is due only at %s", next.Kind, s.ring.name(next), s.offset(due))
		}
		return s.take(s.ring, next, s.now)
	}
	step, err := s.parseStep(words)
	if err != nil {
		return Ring{}, err
	}
	return s.take(s.ring, step, s.now)
}

func (s *scenario) parseStep(words []string) (Step, error) {
	for kind := StepPublish; kind <= StepRemove; kind++ {
		if kind.String() != words[0] {
			continue
		}
		if kind == StepPublish {
			a, err := ParseAlgorithm(words[1])
			return Step{Kind: kind, Algorithm: a}, err
		}
		key, ok := s.ring.BySelector(words[1])
		if !ok {
			return Step{}, fmt.Errorf("no key %s", words[1])
		}
		return Step{Kind: kind, Algorithm: key.Algorithm, Key: key.ID}, nil
	}
	return Step{}, fmt.Errorf("unknown step %q", words[0])
}

func (s *scenario) take(r Ring, step Step, at int64) (Ring, error) {
	var m *Material
	if step.Kind == StepPublish {
		material := s.material(r, step.Algorithm, 0)
		m = &material
	}
	if evidence := s.evidence; step.Kind == StepRevoke {
		step.Evidence = &evidence
	}
	return r.Take(step, at, s.policy, m)
}

// run takes every step as it falls due, up to now: "run", "run except confirm".
func (s *scenario) run(words []string) (Ring, error) {
	except := ""
	if len(words) == 2 {
		except = words[1]
	}
	r := s.ring
	clock := s.start
	for range 1000 {
		planned := slices.DeleteFunc(r.Plan(s.policy), func(p Planned) bool { return p.Kind.String() == except })
		if len(planned) == 0 || planned[0].Due > s.now {
			return r, nil
		}
		clock = max(clock, planned[0].Due)
		next, err := s.take(r, planned[0].Step, clock)
		if err != nil {
			return Ring{}, err
		}
		r = next
	}
	return Ring{}, errors.New("the steps do not end")
}

func (s *scenario) expect(words []string) error {
	switch words[0] {
	case "step":
		return s.expectStep(words[1:])
	case "stage":
		got := "gone"
		if key, ok := s.ring.BySelector(words[1]); ok {
			got = key.Stage.String()
		}
		return same(got, words[2])
	case "ready":
		key, _ := s.ring.BySelector(words[1])
		if key.ReadyAt() == 0 {
			return same("unknown", words[2])
		}
		return same(s.offset(key.ReadyAt()), words[2])
	case "exposed":
		key, _ := s.ring.BySelector(words[1])
		until := s.ring.ExposedUntil(key.ID, s.policy)
		if until == 0 {
			return same("unknown", words[2])
		}
		return same(s.offset(until), words[2])
	case "txt":
		got := []string{"none"}
		for _, record := range s.ring.Records(s.algorithms) {
			if record.Selector == words[1] {
				_, value, _ := strings.Cut(record.Payload, "p=")
				got = []string{value, "long"}
				if value == "" {
					got[0] = "empty"
				}
				if record.Short {
					got[1] = "short"
				}
			}
		}
		return same(strings.Join(got, " "), strings.Join(words[2:], " "))
	}
	return errors.New("unknown expectation")
}

func (s *scenario) expectStep(words []string) error {
	next, due, ok := s.ring.Next(s.policy)
	if !ok {
		return same("none", strings.Join(words, " "))
	}
	subject := next.Algorithm.String()
	if key, ok := s.ring.ByID(next.Key); ok {
		subject = key.Selector
	}
	return same(fmt.Sprintf("%s %s %s", next.Kind, subject, s.offset(due)), strings.Join(words, " "))
}

func same(got, want string) error {
	if got != want {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

var units = []struct {
	name    string
	seconds int64
}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}}

var offsetText = regexp.MustCompile(`^\+(?:\d+[dhms])+$`)

// parseOffset reads "+30d2h".
func parseOffset(text string) (int64, error) {
	if !offsetText.MatchString(text) {
		return 0, fmt.Errorf("time %q, want +30d2h5m", text)
	}
	var total, number int64
	for _, c := range text[1:] {
		if c >= '0' && c <= '9' {
			number = number*10 + int64(c-'0')
			continue
		}
		for _, unit := range units {
			if unit.name == string(c) {
				total += number * unit.seconds
			}
		}
		number = 0
	}
	return total, nil
}

func (s *scenario) offset(at int64) string {
	rest := at - s.start
	if rest == 0 {
		return "+0d"
	}
	text := "+"
	for _, unit := range units {
		if count := rest / unit.seconds; count > 0 {
			text += strconv.FormatInt(count, 10) + unit.name
			rest %= unit.seconds
		}
	}
	return text
}
