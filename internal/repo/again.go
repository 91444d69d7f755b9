package repo

// Again is the same repository, opened with the same key, with an index of its own:
// for work beside somebody else's who drops and loads theirs.
func (r *Repository) Again() *Repository { return newRepository(r.st, r.opt, r.key, r.keyID, r.cfg) }
