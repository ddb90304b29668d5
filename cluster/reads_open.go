package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"authd/cluster/state"
)

// open reads what the last files have and finds where they end. A line cut short,
// by a kill, was never released. Called with mu held.
func (j *journal) open() (err error) {
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return err
	}
	numbers, err := j.numbers()
	if err != nil {
		return err
	}
	committed, _ := j.committed()
	j.repeats = max(j.repeats, committed.Repeats)
	j.seq, j.hash, j.size, j.number = 0, state.AuditHash{}, 0, 1
	damaged, agrees := j.readEnd(numbers, committed)
	if damaged { // the file stays as it is, as evidence
		j.number++
	}
	file, err := os.OpenFile(j.path(j.number), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if damaged {
		j.size = 0
	}
	j.file, j.dirty = file, false
	// Who was killed may have written entries without a sync, and those count as released.
	err = errors.Join(file.Truncate(j.size), j.sync(file), syncDir(j.dir))
	if err == nil && damaged {
		err = j.goOn(committed, j.cut)
	} else if err == nil && !agrees {
		err = j.goOn(committed, fmt.Errorf("the cluster knows of %d entries, the last with hash %s, and the files of this node do not have it: they end with entry %d", committed.Seq, committed.Head, j.seq))
	}
	if err != nil {
		err = errors.Join(err, j.file.Close())
		j.file = nil
	}
	return err
}

// readEnd reads the last two files, and says whether the newest is damaged and
// whether the entry that the cluster knows of is among what was read, as it was.
// Of older files nothing is remembered: their keys are noted anew when read.
func (j *journal) readEnd(numbers []int, committed state.ReadsHead) (damaged, agrees bool) {
	agrees = committed.Seq == 0
	chain := ReadsChain{}
	for i, number := range numbers[max(0, len(numbers)-2):] {
		var err error
		j.number = number
		j.size, err = j.read(number, &chain, func(l *ReadsLine) {
			earlier := l.Read != nil && chain.Count == 1 && i == 0 && committed.Seq < l.Read.Seq
			agrees = agrees || earlier || chain.seq == committed.Seq && chain.hash == committed.Head
		})
		if damaged = err != nil; damaged {
			j.cut = fmt.Errorf("%s: %w", j.path(number), err)
			chain = ReadsChain{seq: chain.seq, hash: chain.hash}
		}
		j.seq, j.hash = chain.seq, chain.hash
	}
	return damaged, agrees
}

// goOn notes that entries are missing, and goes on behind all that the cluster knows
// of. Keys are released all the same: that is what the node is for, and nothing can
// undo what happened. Called with mu held.
func (j *journal) goOn(committed state.ReadsHead, why error) error {
	gap := ReadsGap{After: j.seq, Until: max(j.seq, committed.Seq), Why: why.Error()}
	hash := j.hash
	if committed.Seq >= j.seq {
		hash = committed.Head
	}
	lines, err := appendLine(nil, ReadsLine{Gap: &gap, Hash: hash.String()})
	if err != nil {
		return err
	}
	if err := j.clean(); err != nil {
		return err
	}
	if err := j.add(lines); err != nil {
		return err
	}
	j.size, j.seq, j.hash, j.cut = j.size+int64(len(lines)), gap.Until, hash, why
	return nil
}

// check opens the files, and notes where the cluster came to know of more than
// they have: a node that starts may learn that only later.
func (j *journal) check() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.ready(); err != nil || j.writing {
		return err
	}
	if committed, _ := j.committed(); committed.Seq > j.seq || committed.Seq == j.seq && committed.Head != j.hash {
		j.failed = j.goOn(committed, fmt.Errorf("the cluster knows of %d entries, the last with hash %s, and the files of this node end with entry %d", committed.Seq, committed.Head, j.seq))
	}
	return j.failed
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil || j.writing {
		return nil
	}
	file := j.file
	j.file = nil
	return file.Close()
}

// numbers are those of the files, in order.
func (j *journal) numbers() (numbers []int, err error) {
	files, err := filepath.Glob(filepath.Join(j.dir, "reads-*.jsonl"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		name := filepath.Base(f)
		if number, err := strconv.Atoi(name[len("reads-") : len(name)-len(".jsonl")]); err == nil && number > 0 {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

// read follows the whole lines of a file, and gives how many octets they are.
func (j *journal) read(number int, chain *ReadsChain, each func(*ReadsLine)) (size int64, err error) {
	file, err := os.Open(j.path(number))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 2*readsFile))
	if err != nil {
		return 0, err
	}
	for {
		end := bytes.IndexByte(text, '\n')
		if end < 0 && len(text) >= readsLine {
			return size, fmt.Errorf("behind entry %d: %d octets without an end of line", chain.seq, len(text))
		}
		if end < 0 {
			return size, nil
		}
		l, err := chain.Line(text[:end])
		if err != nil {
			return size, err
		}
		if l.Read != nil && len(j.known) < maxReleased {
			j.known[idOf(l.Read)] = struct{}{}
		}
		each(l)
		size += int64(end) + 1
		text = text[end+1:]
	}
}
