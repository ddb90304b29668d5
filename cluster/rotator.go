package cluster

import (
	"context"
	"sync"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

const (
	// pageTasks and maxPages bound how far a round looks for something to do past
	// tasks that wait for a node.
	pageTasks = 256
	maxPages  = 64
	// beyondPages is how many pages a round goes on past more keys to be made than it
	// takes: what else is due waits behind all of those of a leaked store.
	beyondPages = 4
	// roundSteps and roundKeys bound what one round proposes. Few keys at a time,
	// because each may have to be made first.
	roundSteps    = 64
	roundKeys     = 16
	roundConfirms = 2048

	// minPause is the least time between rounds that had nothing to do: every
	// applied entry could wake the rotator.
	minPause = 100 * time.Millisecond
	// restShare is how many times as long as such a round took the rotator rests: it
	// walks past all that waits, which after an import is many thousands.
	restShare = 9
	// keyTime is how long a round waits for a key to be made.
	keyTime = 5 * time.Second
	// confirmTime is how long the members are waited for before the list of what
	// they are to confirm is drawn up anew.
	confirmTime = 5 * time.Second
	// barrierPause is the pause before nodes that hold a barrier are asked again. It
	// doubles up to the rotator's longest sleep: a node may be away for weeks.
	barrierPause = 500 * time.Millisecond
	// refusedRest is how long a step that was refused is left alone.
	refusedRest = 30 * time.Second
	// otherKeys is how many further keys are tried at once for a standby whose key
	// was refused because it is in use. From a sound source none ever is.
	otherKeys = 3
)

// rotator moves time forward: on the leader it proposes the steps that are due.
// It decides nothing: state.Machine.DueAfter says what is due, and Apply checks
// it once more. It also is the node's clock for proposals.
type rotator struct {
	node    *Node
	clock   *timekeeper
	kick    chan struct{}
	confirm chan confirmation
	drain   chan confirmation
	// Of the rotator's goroutine: where the next round begins, and where it goes on
	// beyond the keys to be made.
	from, beyond state.Task

	// mu guards what follows.
	mu      sync.Mutex
	waiting string // what confirmations wait for; empty: nothing
	unheard string // whose evidence is missing; empty: nobody's
	resting map[rest]time.Time
}

// confirmation is standbys that every member must be seen to serve.
type confirmation struct {
	tasks []state.Task
	index uint64 // all were published at or before
}

// rest identifies a step that was refused.
type rest struct {
	token  state.Token
	step   keys.Step
	expire bool
}

// restOf identifies a task whatever its evidence.
func restOf(t state.Task) rest {
	t.Step.Evidence = nil
	return rest{t.Token, t.Step, t.Expire}
}

func newRotator(n *Node) *rotator {
	return &rotator{
		node: n, clock: newTimekeeper(n), kick: make(chan struct{}, 1), confirm: make(chan confirmation), drain: make(chan confirmation),
		resting: make(map[rest]time.Time),
	}
}

// wake starts a round soon.
func (r *rotator) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// run is the rotator's goroutine.
func (r *rotator) run() {
	r.node.wg.Go(r.runConfirm)
	r.node.wg.Go(r.runDrain)
	r.node.wg.Go(func() { r.clock.run(r.wake) })
	r.node.wg.Go(r.runFleet)
	r.node.wg.Go(r.runWrap)
	for {
		changed := r.node.fsm.next()
		began := time.Now()
		if r.node.leads() && r.round() {
			continue
		}
		if !r.sleep(max(minPause, restShare*time.Since(began))) {
			return
		}
		select {
		case <-changed:
		case <-r.kick:
		case <-time.After(r.node.tuning.rotate):
		case <-r.node.ctx.Done():
			return
		}
	}
}

func (r *rotator) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.node.ctx.Done():
		return false
	}
}

// work is what a round found to do.
type work struct {
	steps    []state.Task // need nothing from outside
	publish  []state.Task // need a key
	confirms confirmation // need the members
	drains   confirmation // need what the members saw
	// busy are the claims in publish: one key at a time, since each is sealed for the
	// next place in its ring.
	busy map[state.Token]bool
}

// round proposes what is due and says whether there was anything.
func (r *rotator) round() bool {
	m := r.node.Machine()
	if !r.clock.serves(m.Time()) {
		return false
	}
	w := r.find(m)
	if len(w.confirms.tasks) > 0 {
		select {
		case r.confirm <- w.confirms:
		default: // earlier ones are waited for
		}
	}
	if len(w.drains.tasks) > 0 {
		select {
		case r.drain <- w.drains:
		default:
		}
	}
	did := r.propose(w.steps, func(t state.Task) (state.Command, error) {
		if t.Expire {
			return state.ExpireDomain{Token: t.Token}, nil
		}
		return state.StepKey{Token: t.Token, Step: t.Step}, nil
	})
	did = r.cookieSecret(m) || did
	if m.Rescheduling() {
		did = r.send([]state.Command{state.Reschedule{}}) != nil || did
	}
	return r.publishAll(w.publish) || did
}

// publishAll publishes standbys. What a refusal says of one key it does not say of
// the next, so another is tried before the step rests.
func (r *rotator) publishAll(tasks []state.Task) bool {
	did := false
	for range otherKeys {
		changed, taken := r.proposeEach(tasks, r.publish, keyTaken)
		did = did || changed
		if tasks = taken; len(tasks) == 0 {
			return did
		}
	}
	return r.propose(tasks, r.publish) || did
}

// keyTaken says whether a publication was refused for its key alone.
func keyTaken(t state.Task, refusal *state.Refusal) bool {
	return t.Step.Kind == keys.StepPublish && refusal.Kind == state.Conflict && refusal.Field == "keys"
}

// find draws up what there is to do, past tasks that only wait.
func (r *rotator) find(m state.Machine) (w work) {
	w.confirms.index, w.drains.index = m.Index(), m.Index()
	now := r.node.c.Now().Unix()
	w.busy = make(map[state.Token]bool)
	last := r.from
	for range maxPages {
		page := m.DueAfter(last, pageTasks, now)
		for _, t := range page {
			r.sort(&w, t)
		}
		done := len(page) < pageTasks || len(w.steps) >= roundSteps
		if !done && len(w.publish) >= roundKeys {
			r.findBeyond(m, now, page[len(page)-1], &w)
			done = true
		}
		if done {
			r.from = state.Task{}
			return w
		}
		last = page[len(page)-1]
	}
	// More wait than one round looks at: the next goes on behind them.
	r.from = last
	return w
}

// findBeyond goes on behind a task, and in the next rounds behind where it came to,
// while there are more keys to be made than a round takes: those wait for a mill,
// and what is due behind them does not.
func (r *rotator) findBeyond(m state.Machine, now int64, last state.Task, w *work) {
	if r.beyond.Behind(last) {
		last = r.beyond
	}
	for range beyondPages {
		page := m.DueAfter(last, pageTasks, now)
		for _, t := range page {
			r.sort(w, t)
		}
		if len(page) < pageTasks {
			r.beyond = state.Task{}
			return
		}
		if last = page[len(page)-1]; len(w.steps) >= roundSteps {
			break
		}
	}
	r.beyond = last
}

// sort puts a task where it belongs, if there is room for it.
func (r *rotator) sort(w *work, t state.Task) {
	switch {
	case r.rests(t):
	case !t.Expire && t.Step.Kind == keys.StepRevoke:
		if len(w.drains.tasks) < maxTold {
			w.drains.tasks = append(w.drains.tasks, t)
		}
	case !t.Expire && t.Step.Kind == keys.StepConfirm:
		if len(w.confirms.tasks) < roundConfirms {
			w.confirms.tasks = append(w.confirms.tasks, t)
		}
	case !t.Expire && t.Step.Kind == keys.StepPublish:
		if len(w.publish) < roundKeys && !w.busy[t.Token] {
			w.busy[t.Token] = true
			w.publish = append(w.publish, t)
		}
	default:
		w.steps = append(w.steps, t)
	}
}

// publish makes the key of a standby.
func (r *rotator) publish(t state.Task) (state.Command, error) {
	ctx, cancel := context.WithTimeout(r.node.ctx, keyTime)
	defer cancel()
	m, err := r.node.Materials(ctx, t.Token, []keys.Algorithm{t.Step.Algorithm})
	if err != nil {
		return nil, err
	}
	return state.StepKey{Token: t.Token, Step: t.Step, Material: &m[0]}, nil
}

// propose turns tasks into commands and proposes them. Those that are refused
// rest for a while. It says whether any changed something.
func (r *rotator) propose(tasks []state.Task, command func(state.Task) (state.Command, error)) bool {
	did, _ := r.proposeEach(tasks, command, func(state.Task, *state.Refusal) bool { return false })
	return did
}

// proposeEach is propose that gives back, and lays nothing of, what is refused for
// a reason that the caller deals with.
func (r *rotator) proposeEach(tasks []state.Task, command func(state.Task) (state.Command, error), again func(state.Task, *state.Refusal) bool) (did bool, back []state.Task) {
	var of []state.Task
	var commands []state.Command
	for _, t := range tasks {
		c, err := command(t)
		if err != nil {
			r.node.logger.Warn("rotation step cannot be prepared", "claim", t.Token, "step", t.Step.Kind, "error", err)
			r.lay(t, refusedRest)
			continue
		}
		of, commands = append(of, t), append(commands, c)
	}
	if len(commands) == 0 {
		return false, nil
	}
	for i, result := range r.send(commands) {
		if result.Refusal != nil {
			r.node.logger.Info("rotation step refused", "claim", of[i].Token, "step", of[i].Step.Kind, "reason", result.Refusal.Message)
			if again(of[i], result.Refusal) {
				back = append(back, of[i])
			} else {
				r.lay(of[i], refusedRest)
			}
		}
		did = did || result.Changed
	}
	return did, back
}

// send proposes as the rotator; nil where it did not work.
func (r *rotator) send(commands []state.Command) []state.Result {
	ctx, cancel := context.WithTimeout(r.node.ctx, callTime)
	defer cancel()
	results, _, err := r.node.Propose(ctx, Actor{ID: "rotator"}, commands...)
	if err != nil && r.node.ctx.Err() == nil {
		r.node.logger.Info("rotation steps not committed; they stay due", "steps", len(commands), "error", err)
	}
	return results
}

// lay leaves a task alone for a while.
func (r *rotator) lay(t state.Task, rested time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for k, until := range r.resting {
		if now.After(until) {
			delete(r.resting, k)
		}
	}
	r.resting[restOf(t)] = now.Add(rested)
}

func (r *rotator) rests(t state.Task) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.resting[restOf(t)]
	return ok && time.Now().Before(until)
}

// runConfirm asks the members about published standbys. One that cannot be asked
// holds them, and nothing else.
func (r *rotator) runConfirm() {
	pause := barrierPause
	for {
		select {
		case c := <-r.confirm:
			ctx, cancel := context.WithTimeout(r.node.ctx, confirmTime)
			passed := r.node.barrier.pass(ctx, c)
			cancel()
			said := r.node.barrier.said()
			r.mu.Lock()
			news := said != r.waiting
			r.waiting = said
			r.mu.Unlock()
			if news && said != "" {
				r.node.logger.Warn("standby keys are not confirmed yet", "reason", said)
			}
			if len(passed) == 0 {
				if !r.sleep(pause) {
					return
				}
				pause = max(min(2*pause, r.node.tuning.rotate), barrierPause)
				r.wake()
				continue
			}
			pause = barrierPause
			r.propose(passed, func(t state.Task) (state.Command, error) {
				return state.StepKey{Token: t.Token, Step: t.Step}, nil
			})
			r.wake()
		case <-r.node.ctx.Done():
			return
		}
	}
}

// problems are what Health shows.
func (r *rotator) problems() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, p := range []string{r.clock.health(), r.waiting, r.unheard} {
		if p != "" {
			list = append(list, p)
		}
	}
	return list
}
