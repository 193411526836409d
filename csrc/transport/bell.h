// Where a thread rests until there may be something to do for it.
#pragma once

namespace pycoll {

// One thread listens, and rests then; any may ring.
class Bell {
 public:
  virtual ~Bell() = default;

  // From here on it hears: what is stored and rung for after this ends the rest() that follows. What was stored before
  // is to be looked for between the two.
  virtual void listen() = 0;
  // Sleeps until a ring since listen(), at most so long; then it does not listen any more. True if there was one.
  virtual bool rest(double seconds) = 0;
  // What is to be done was made known under a lock that the thread takes between listen() and rest().
  virtual void ring() = 0;
};

}  // namespace pycoll
