package zone

// Tree is the index the query path reads: from a name's hash to the branch that
// holds it, in shards that are replaced, never edited in sight of a reader.
// One writer at a time changes it through an Editor; any number of readers look
// names up meanwhile. A reader may see one change before its neighbour's, never
// half a branch.
type Tree struct{ treeIndex }

type treeIndex struct{}

// NewTree returns an empty tree, which refuses every question.
func NewTree() *Tree { panic("todo") }

// Editor collects changes to a tree. It is not safe for concurrent use, and
// only one may be open at a time.
type Editor struct{ editorState }

type editorState struct{}

// Edit opens an editor.
func (t *Tree) Edit() *Editor { panic("todo") }

// Put makes the branch answer under all its anchors, in place of old, whose
// anchors that the new branch lacks are removed. Either may be zero.
func (e *Editor) Put(old, new Branch) { panic("todo") }

// SetPool replaces the answers of the pool with that number.
func (e *Editor) SetPool(number uint32, p *Pool) { panic("todo") }

// SetPlatform adds or replaces a platform zone; nil removes it.
func (e *Editor) SetPlatform(number uint32, p *Platform) { panic("todo") }

// SetSerial sets a platform zone's counter without rendering it again.
func (e *Editor) SetSerial(number uint32, serial uint32) { panic("todo") }

// Commit publishes everything collected, each touched shard by one pointer.
func (e *Editor) Commit() { panic("todo") }

// Diff says where two trees differ, for tests: nil when every name has the same
// answers in both.
func (t *Tree) Diff(other *Tree) []string { panic("todo") }
