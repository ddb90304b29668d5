package cluster

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"authd/cluster/state"
)

const (
	// readsDir is where in the data directory a node's journal of key reads is.
	readsDir = "reads"
	// readsFile is the size at which a file is closed and the next one begun, some
	// 100,000 entries. Files are never removed: an operator archives them.
	readsFile = 32 << 20
	// readsLine is longer than any line.
	readsLine = 4 << 10
	// maxReleased bounds what a node remembers as released, at some 40 octets each.
	// Past it the journal begins to have entries again for keys that it had.
	maxReleased = 2_000_000
	// readsPause is how often the journal's end is told to the cluster at most.
	readsPause = time.Minute
)

// KeyRead is the first release of a private half to an access token on a node.
type KeyRead struct {
	Seq      uint64    `json:"seq"`
	At       time.Time `json:"at"`
	Node     string    `json:"node"`
	Token    string    `json:"token"`  // id of the access token
	Source   string    `json:"source"` // client address
	Claim    string    `json:"claim"`  // token of the claim
	Domain   string    `json:"domain"`
	Selector string    `json:"selector"`
	Key      uint32    `json:"key"`
}

// ReadsGap says that what follows is not the entry after the one before it: the
// entries between (After, Until] are not in the files, or are not what they were.
type ReadsGap struct {
	After uint64 `json:"after"`
	Until uint64 `json:"until"`
	Why   string `json:"why"`
}

// ReadsLine is one line of the journal, as JSON: an entry or a gap, and the hash
// that the chain has with it. An entry's is SHA-256 of the hash before it and the
// entry as it stands in the line; a gap's is where the chain goes on.
type ReadsLine struct {
	Read *KeyRead  `json:"read,omitempty"`
	Gap  *ReadsGap `json:"gap,omitempty"`
	Hash string    `json:"hash"`
}

// Next is the hash of an entry that follows one with the hash before.
func (r *KeyRead) Next(before state.AuditHash) (state.AuditHash, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return before, err
	}
	h := sha256.New()
	h.Write(before[:])
	h.Write(text)
	return state.AuditHash(h.Sum(nil)), nil
}

// ErrJournal: the key must not leave, because that cannot be written down.
var ErrJournal = errors.New("the journal of key reads cannot be written")

// journal writes down which key was first released to whom, before it leaves.
// Whoever takes a node's disk or a token can read keys, and this is how one finds
// out afterwards which; so a first release waits for the disk, and where the disk
// does not take it there is none. What was released before goes on: nothing new
// would be learnt, and mail would be sent without signatures.
type journal struct {
	dir, node string
	limit     int64
	now       func() time.Time
	sync      func(*os.File) error // os.File.Sync, except in tests
	// committed is where the cluster says that the journal ended, and from when on.
	committed func() (state.ReadsHead, bool)
	grew      chan struct{} // has a value once there are entries that nobody was told of

	mu      sync.Mutex // guards all below
	known   map[readID]struct{}
	repeats uint64
	batch   *readBatch // waits to be written; nil: none
	current *readBatch // is being written; nil: none
	writing bool
	failed  error // of the last write or opening; nil: none
	cut     error // entries are missing from the files; stays until the next start

	file   *os.File // nil: not opened yet
	number int
	size   int64 // of whole lines
	dirty  bool  // there may be more in the file than that
	seq    uint64
	hash   state.AuditHash
}

// readID stands for a key and the access token it was released to: half of a SHA-256,
// since whoever holds a token chooses nothing that goes into it.
type readID [16]byte

func idOf(r *KeyRead) (id readID) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d", r.Token, r.Claim, r.Key))
	copy(id[:], sum[:])
	return id
}

// readBatch are first releases that are written and synced together.
type readBatch struct {
	reads []*KeyRead
	ids   map[readID]struct{}
	done  chan struct{} // closed once err stands
	err   error
}

func newJournal(dataDir, node string, now func() time.Time, committed func() (state.ReadsHead, bool)) *journal {
	return &journal{
		dir: filepath.Join(dataDir, readsDir), node: node, limit: readsFile, now: now,
		sync: (*os.File).Sync, committed: committed, known: make(map[readID]struct{}), grew: make(chan struct{}, 1),
	}
}

// Release notes that a private half is about to leave this node. Where it fails
// the key must not: ErrJournal. It is the one place that every release passes.
func (n *Node) Release(r KeyRead) error { return n.journal.release(r) }

// release waits until a first release is on disk; others are counted.
func (j *journal) release(r KeyRead) error {
	r.Node, r.At = j.node, j.now().UTC().Truncate(time.Second)
	id := idOf(&r)
	j.mu.Lock()
	if err := j.ready(); err != nil {
		j.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if _, ok := j.known[id]; ok {
		j.repeats++
		j.mu.Unlock()
		return nil
	}
	b := j.join(&r, id)
	if !j.writing {
		j.writing = true
		go j.write()
	}
	j.mu.Unlock()
	<-b.done
	if b.err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, b.err)
	}
	return nil
}

// join puts a first release into the batch that is to be written with it.
func (j *journal) join(r *KeyRead, id readID) *readBatch {
	for _, b := range []*readBatch{j.current, j.batch} {
		if b == nil {
			continue
		}
		if _, ok := b.ids[id]; ok {
			j.repeats++
			return b
		}
	}
	if j.batch == nil {
		j.batch = &readBatch{ids: make(map[readID]struct{}), done: make(chan struct{})}
	}
	j.batch.ids[id] = struct{}{}
	j.batch.reads = append(j.batch.reads, r)
	return j.batch
}

// ready opens the files. What was released before is in them, so that without
// them nothing is known to be a repeat.
func (j *journal) ready() error {
	if j.file != nil {
		return nil
	}
	j.failed = j.open()
	return j.failed
}

// write writes batches until none waits. It holds mu but while the disk works.
func (j *journal) write() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.batch != nil {
		b := j.batch
		j.batch, j.current = nil, b
		j.mu.Unlock()
		b.err = j.put(b.reads)
		j.mu.Lock()
		j.current, j.failed = nil, b.err
		if b.err == nil {
			if len(j.known)+len(b.ids) > maxReleased {
				clear(j.known)
			}
			for id := range b.ids {
				j.known[id] = struct{}{}
			}
		}
		close(b.done)
	}
	j.writing = false
}

// put writes entries and syncs them. What fails half-way is written over the next
// time. Of file, number, size, seq and hash the writer is the only user.
func (j *journal) put(reads []*KeyRead) error {
	var lines []byte
	seq, hash := j.seq, j.hash
	for _, r := range reads {
		seq++
		r.Seq = seq
		next, err := r.Next(hash)
		if err != nil {
			return err
		}
		hash = next
		if lines, err = appendLine(lines, ReadsLine{Read: r, Hash: hash.String()}); err != nil {
			return err
		}
	}
	return j.append(lines, seq, hash)
}

func appendLine(lines []byte, l ReadsLine) ([]byte, error) {
	text, err := json.Marshal(l)
	if err == nil && len(text) >= readsLine {
		err = fmt.Errorf("a line of %d octets, at most %d", len(text), readsLine)
	}
	return append(append(lines, text...), '\n'), err
}

// append adds whole lines, which end with the entry seq, and syncs.
func (j *journal) append(lines []byte, seq uint64, hash state.AuditHash) error {
	if err := j.clean(); err != nil {
		return err
	}
	if j.size > 0 && j.size+int64(len(lines)) > j.limit {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	if err := j.add(lines); err != nil {
		return err
	}
	j.mu.Lock()
	j.size, j.seq, j.hash = j.size+int64(len(lines)), seq, hash
	j.mu.Unlock()
	select {
	case j.grew <- struct{}{}:
	default:
	}
	return nil
}

// clean takes away what an attempt before left behind the end: it would be read as
// entries.
func (j *journal) clean() error {
	if !j.dirty {
		return nil
	}
	if err := errors.Join(j.file.Truncate(j.size), j.sync(j.file)); err != nil {
		return err
	}
	j.dirty = false
	return nil
}

// add writes lines behind the end and syncs.
func (j *journal) add(lines []byte) error {
	j.dirty = true
	_, err := j.file.WriteAt(lines, j.size)
	if err == nil {
		err = j.sync(j.file)
	}
	if err != nil {
		// So that no successor takes it for entries, after the next kill; clean makes sure.
		j.file.Truncate(j.size)
		return err
	}
	j.dirty = false
	return nil
}

// rotate goes on in a new file.
func (j *journal) rotate() error {
	next, err := os.OpenFile(j.path(j.number+1), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(j.dir); err != nil {
		return errors.Join(err, next.Close())
	}
	j.file.Close() // it is synced
	j.mu.Lock()
	j.file, j.number, j.size = next, j.number+1, 0
	j.mu.Unlock()
	return nil
}

func (j *journal) path(number int) string {
	return filepath.Join(j.dir, fmt.Sprintf("reads-%04d.jsonl", number))
}

// head is where the journal ends, and how often what it has was read again.
func (j *journal) head() (seq uint64, hash state.AuditHash, repeats uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq, j.hash, j.repeats
}

// problems says why first releases are refused, and what is missing.
func (j *journal) problems() (list []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		list = append(list, "journal of key reads: "+j.failed.Error()+"; keys that a signer has not read here before are refused")
	}
	if j.cut != nil {
		list = append(list, "journal of key reads: "+j.cut.Error())
	}
	return list
}
