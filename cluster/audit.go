package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"authd/cluster/state"
)

const (
	// auditDir is where in the data directory a node writes all changes.
	auditDir = "audit"
	// auditFile is the size at which a file is closed and the next one begun.
	// Files are never removed: an operator archives them.
	auditFile = 64 << 20
	// auditChunk is how much is written at once, auditLine longer than any line.
	auditChunk = 256 << 10
	auditLine  = 64 << 10
	// auditPause is how often files are written and synced at most. What a kill
	// takes away is written after the next start: the machine remembers far more.
	auditPause = time.Second
)

// AuditLine is one line of an audit file, as JSON: a change or, where Gap is not
// nil, a place where changes are missing.
type AuditLine struct {
	*state.AuditEntry
	Gap *AuditGap `json:"gap,omitempty"`
}

// AuditGap says that what follows is not the change after the line before: the
// node did not have those between (After, Until] when it could have written them,
// or its state was replaced by a backup and has another history.
type AuditGap struct {
	After uint64 `json:"after"`
	Until uint64 `json:"until"`
	Hash  string `json:"hash"` // of the change Until, which the next one follows
	Why   string `json:"why"`
}

// trail writes the changes of the machine to files: all, in order, each once. It
// belongs to one goroutine, problem apart.
type trail struct {
	dir     string
	limit   int64
	problem atomic.Pointer[string] // nil: none
	// restored: another machine took the place of the one before, and may know less.
	restored atomic.Bool

	sync func(*os.File) error // os.File.Sync but in tests

	file *os.File // nil: not opened
	trailEnd
	// synced is the end that the disk has for certain. What a failed sync was to write
	// may be gone though it reads as if it were there: it is written again from here.
	synced trailEnd
}

// trailEnd is a place where the files may end.
type trailEnd struct {
	number int             // of the file; 0: not known yet
	size   int64           // of whole lines in it
	seq    uint64          // of the last change written
	hash   state.AuditHash // and its hash
}

func newTrail(dataDir string) *trail {
	return &trail{dir: filepath.Join(dataDir, auditDir), limit: auditFile, sync: (*os.File).Sync}
}

// problems says why changes are not written.
func (t *trail) problems() []string {
	if p := t.problem.Load(); p != nil {
		return []string{*p}
	}
	return nil
}

// keepAudit is the goroutine that writes the files. A disk that does not take
// them is a problem to be told, and no reason to stop answering.
func (n *Node) keepAudit() {
	t := n.trail
	for {
		changed := n.fsm.next()
		// The machine remembers what waits here while the disk is short.
		var err error
		if why := n.disk.problem(); why != "" {
			err = errors.New(why)
		} else {
			err = t.follow(n.Machine())
		}
		if err == nil {
			t.problem.Store(nil)
		} else if text := "audit files: " + err.Error(); t.problem.Swap(&text) == nil {
			n.logger.Error("writing the audit files, trying again", "error", err)
		}
		pause := time.NewTimer(auditPause)
		if err == nil {
			select {
			case <-changed:
			case <-n.ctx.Done():
			}
		}
		select {
		case <-pause.C:
			continue
		case <-n.ctx.Done():
		}
		pause.Stop()
		break
	}
	if err := errors.Join(t.follow(n.Machine()), t.close()); err != nil {
		n.logger.Error("closing the audit files", "error", err)
	}
}

// follow writes the changes of a machine that are not written yet, and syncs.
func (t *trail) follow(m state.Machine) error {
	if t.file == nil {
		if err := t.open(); err != nil {
			return err
		}
	}
	err := t.catchUp(m)
	if err != nil {
		t.giveUp()
	}
	return err
}

// giveUp goes back to the last sync, after a failure. The kernel tells of what it could
// not write once, and may take it for written from then on, so a second sync proves
// nothing; nor may a successor take it over that reads it here.
func (t *trail) giveUp() {
	t.file.Truncate(t.synced.size) // again when it is opened
	t.file.Close()
	t.file, t.trailEnd = nil, t.synced
}

func (t *trail) catchUp(m state.Machine) error {
	head, _ := m.AuditHead()
	if head < t.seq && !t.restored.Load() {
		return nil // the machine was built from less than this node had applied: it catches up
	}
	wrote := false
	if gap := t.gap(m); gap != nil {
		line, err := json.Marshal(AuditLine{Gap: gap})
		if err != nil {
			return err
		}
		base, hash := m.AuditBase()
		if err := t.write(append(line, '\n'), base, hash); err != nil {
			return err
		}
		wrote = true
	}
	var chunk, line []byte
	var err error
	seq, hash := t.seq, t.hash
	for e := range m.Audit(t.seq) {
		if line, err = appendEntry(line[:0], e); err != nil {
			return err
		}
		if len(chunk) > 0 && (len(chunk)+len(line) > auditChunk || t.size+int64(len(chunk)+len(line)) >= t.limit) {
			if err := t.write(chunk, seq, hash); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
		chunk = append(append(chunk, line...), '\n')
		if hash, err = state.ParseAuditHash(e.Hash); err != nil {
			return err
		}
		seq, wrote = e.Seq, true
	}
	if len(chunk) > 0 {
		if err := t.write(chunk, seq, hash); err != nil {
			return err
		}
	}
	if !wrote {
		return nil
	}
	return t.settle()
}

// settle syncs what was written.
func (t *trail) settle() error {
	if err := t.sync(t.file); err != nil {
		return err
	}
	t.synced = t.trailEnd
	return nil
}

// appendEntry appends an entry as encoding/json has it. Each node writes one for
// every change, so what is plain text is put together here.
func appendEntry(b []byte, e *state.AuditEntry) ([]byte, error) {
	b = strconv.AppendUint(append(b, `{"seq":`...), e.Seq, 10)
	b = strconv.AppendUint(append(b, `,"index":`...), e.Index, 10)
	b = e.At.AppendFormat(append(b, `,"at":"`...), time.RFC3339Nano)
	b = append(b, '"')
	for _, f := range [...]struct {
		name, text string
		always     bool
	}{
		{`,"actor":`, e.Actor, true}, {`,"source":`, e.Source, false}, {`,"reason":`, e.Reason, false},
		{`,"command":`, e.Command, true}, {`,"kind":`, e.Kind, false}, {`,"subject":`, e.Subject, false},
		{`,"name":`, e.Name, false}, {`,"tenant":`, e.Tenant, false}, {`,"key":`, e.Key, false},
		{`,"summary":`, e.Summary, false}, {`,"hash":`, e.Hash, true},
	} {
		if f.text == "" && !f.always {
			continue
		}
		b = append(b, f.name...)
		if plainJSON(f.text) {
			b = append(append(append(b, '"'), f.text...), '"')
			continue
		}
		quoted, err := json.Marshal(f.text)
		if err != nil {
			return nil, err
		}
		b = append(b, quoted...)
	}
	return append(b, '}'), nil
}

// plainJSON says whether encoding/json writes a text as it is.
func plainJSON(text string) bool {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&':
			return false
		}
	}
	return true
}

// gap is what cannot be written any more; nil: nothing is missing.
func (t *trail) gap(m state.Machine) *AuditGap {
	base, hash := m.AuditBase()
	why := "this node was away for longer than the cluster remembers: another node's files have these"
	if t.seq >= base {
		if had, ok := m.AuditAt(t.seq); ok && had == t.hash {
			return nil
		}
		why = "the state was replaced by a backup: what follows is another history"
	}
	return &AuditGap{After: t.seq, Until: base, Hash: hash.String(), Why: why}
}

// write adds whole lines, which end with the change seq. What fails half-way is
// written over the next time.
func (t *trail) write(lines []byte, seq uint64, hash state.AuditHash) error {
	if t.size > 0 && t.size+int64(len(lines)) > t.limit {
		if err := t.rotate(); err != nil {
			return err
		}
	}
	if _, err := t.file.WriteAt(lines, t.size); err != nil {
		return err
	}
	t.size += int64(len(lines))
	t.seq, t.hash = seq, hash
	return nil
}

// rotate goes on in a new file. The old one is whole on disk before.
func (t *trail) rotate() error {
	if err := t.settle(); err != nil {
		return err
	}
	next, err := os.OpenFile(t.path(t.number+1), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(t.dir); err != nil {
		return errors.Join(err, next.Close())
	}
	t.file.Close() // it is synced
	t.file, t.number, t.size = next, t.number+1, 0
	t.synced = t.trailEnd
	return nil
}

func (t *trail) path(number int) string {
	return filepath.Join(t.dir, fmt.Sprintf("audit-%04d.jsonl", number))
}

// open finds where the files end. A line cut short, by a kill, is written again.
func (t *trail) open() error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	if t.number == 0 {
		if err := t.find(); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(t.path(t.number), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Size() < t.size { // it was moved away meanwhile
		t.size = 0
	}
	// What an earlier process wrote counts from now on, so that is synced too.
	if err := errors.Join(err, file.Truncate(t.size), t.sync(file), syncDir(t.dir)); err != nil {
		return errors.Join(err, file.Close())
	}
	t.file, t.synced = file, t.trailEnd
	return nil
}

// find reads where the files of earlier processes end.
func (t *trail) find() error {
	t.trailEnd = trailEnd{}
	last, err := t.newest()
	if err != nil {
		return err
	}
	// A new file may have been begun without a line in it.
	for number := last; number > 0 && t.seq == 0; number-- {
		if err := t.readEnd(number, number == last); err != nil {
			return fmt.Errorf("%s: %w; move the file away, and the gap will be noted", t.path(number), err)
		}
	}
	t.number = max(last, 1)
	return nil
}

// newest is the number of the last file; 0: there is none.
func (t *trail) newest() (last int, err error) {
	files, err := os.ReadDir(t.dir)
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		digits, ok := strings.CutPrefix(strings.TrimSuffix(f.Name(), ".jsonl"), "audit-")
		if number, err := strconv.Atoi(digits); ok && err == nil {
			last = max(last, number)
		}
	}
	return last, nil
}

// readEnd takes over the last whole line of a file; size is of the newest.
func (t *trail) readEnd(number int, newest bool) error {
	file, err := os.Open(t.path(number))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // archived
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	from := max(info.Size()-2*auditLine, 0)
	end, err := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(end, '\n') + 1
	if newest {
		t.size = from + int64(whole)
	}
	if whole == 0 {
		if from > 0 {
			return errors.New("no line ends where one should")
		}
		return nil
	}
	lines := bytes.Split(end[:whole-1], []byte("\n"))
	return t.takeOver(lines[len(lines)-1])
}

func (t *trail) takeOver(line []byte) error {
	var l AuditLine
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	seq, hash := uint64(0), ""
	switch {
	case l.Gap != nil:
		seq, hash = l.Gap.Until, l.Gap.Hash
	case l.AuditEntry != nil:
		seq, hash = l.Seq, l.AuditEntry.Hash
	}
	h, err := state.ParseAuditHash(hash)
	if err != nil {
		return err
	}
	t.seq, t.hash = seq, h
	return nil
}

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (t *trail) close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}
