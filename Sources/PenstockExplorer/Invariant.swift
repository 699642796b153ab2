// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// What must hold of a store, whatever happens to its machine. Each is a check of its own, and each
/// has a planted bug that it must catch: see `Canary`.
package enum Invariant: String, CaseIterable, Sendable {
  /// A message whose send was acknowledged, and that nothing may have removed, is there.
  case acknowledgedIsRecovered
  /// A message that a receiver saw does not vanish, whether its send was acknowledged or not.
  case deliveredIsRecovered
  /// A message that is there was sent, once, with these bytes.
  case recoveredWasSubmitted
  /// A message that is gone for good does not come back: deleted, purged, or with its queue.
  case goneStaysGone
  /// All messages of one send are there, or none.
  case groupsAreWhole
  /// Messages come in the order in which they were sent.
  case orderIsKept
  /// Messages of a group of a FIFO queue come in the order in which they were sent.
  case groupOrderIsKept
  /// No message of a group of a FIFO queue is delivered while one before it is hidden.
  case groupRunsExclude
  /// A send is answered as a repetition exactly when the one it repeats is remembered, and that is
  /// as long as it was promised if that one was not lost.
  case repetitionsAreKnown
  /// A message on its way to the dead letters is in one of both queues: never in both nor in none.
  case movesAreWhole
  /// All steps of a transaction have happened, or none.
  case transactionsAreWhole
  /// No message is delivered while a lease of it that was told lasts.
  case leasesExclude
  /// A message does not forget how often it was received.
  case receiveCountsHold
  /// Delays and leases end when they were said to.
  case timersHold
  /// All that is recovered is what the model was after one of the operations, none skipped.
  case recoveredIsOnePast
  /// Answers that wait for the disk come in the order of the operations.
  case answersComeInOrder
  /// An answer is what the model says.
  case answersAgree
  /// A start after a legal crash is not refused.
  case legalCrashIsAccepted
  /// Damage to what was acknowledged is refused, never shortened silently.
  case damageIsRefused
  /// Damage to a checkpoint or an index changes nothing that is shown.
  case spareIsSpared
  /// A message whose bytes are damaged is set aside, on record and with its bytes in a file: never
  /// delivered, and never silently gone.
  case damagedIsSetAside
  /// Recovering again finds the same and changes nothing.
  case recoveryIsStable
  /// The state that was recovered fits together.
  case stateFitsTogether
  /// A store that was recovered is one like any other: what it acknowledges from now on stays.
  case recoveredGoesOn
  /// A store that was closed comes back as it was.
  case closedComesBackWhole
  /// A store always gets something done.
  case neverStuck
}

/// An invariant that did not hold, and how that showed.
package struct Violation: Error, CustomStringConvertible {
  package var invariant: Invariant
  package var story: String
  package var description: String { "\(invariant.rawValue): \(story)" }

  init(_ invariant: Invariant, _ story: String) {
    self.invariant = invariant
    self.story = story
  }
}

/// What happened on the way: a proof that never came by there proves nothing of it.
package enum Event: String, CaseIterable, Sendable {
  case restoredACheckpoint = "starts from a checkpoint"
  case restoredTheOlder = "starts from the older checkpoint, the newer one damaged"
  case replayedParked = "starts that replayed parked messages"
  case replayedDraws = "starts that replayed draws"
  case replayedMoves = "starts that replayed moved messages"
  case replayedTransfers = "starts that replayed moves to dead letters"
  case replayedGroups = "starts that replayed messages of groups"
  case repeated = "sends that repeated another"
  case transferred = "messages moved to dead letters"
  case committed = "transactions committed"
  case swept = "messages deleted by a sweep"
  case rejected = "messages rejected"
  case replayedSweeps = "starts that replayed parked messages' being taken out"
  case refusedLease = "operations refused for a lost lease"
  case replayedSetAside = "starts that replayed damaged messages' being set aside"
  case setAside = "stores that set damaged messages aside"
  case heldUp = "stores with a queue held up by damage, with an error"
  case removedSegment = "segments removed"
  case removedCheckpoint = "checkpoints removed"
  case refusedFull = "operations refused for a full disk"
}

/// How often each invariant was looked at, and what happened on the way.
package struct Checks: Sendable {
  package private(set) var counts = [Int](repeating: 0, count: Invariant.allCases.count)
  package private(set) var events: [Event: Int] = [:]

  package init() {}

  /// Counts a look and throws when the invariant does not hold.
  mutating func check(
    _ invariant: Invariant, _ holds: Bool, _ story: @autoclosure () -> String
  ) throws(Violation) {
    counts[Self.index[invariant, default: 0]] += 1
    if !holds { throw Violation(invariant, story()) }
  }

  package func count(_ invariant: Invariant) -> Int { counts[Self.index[invariant, default: 0]] }

  mutating func note(_ event: Event) { events[event, default: 0] += 1 }

  /// Notes what a start found.
  mutating func note(_ machine: Machine) {
    for event in machine.replayed.events { note(event) }
    let recovery = machine.store.recovery
    guard recovery.checkpointLSN != nil else { return }
    note(.restoredACheckpoint)
    if !recovery.damagedCheckpoints.isEmpty { note(.restoredTheOlder) }
  }

  package mutating func add(_ other: Checks) {
    for index in counts.indices { counts[index] += other.counts[index] }
    events.merge(other.events) { $0 + $1 }
  }

  private static let index = Dictionary(
    uniqueKeysWithValues: Invariant.allCases.enumerated().map { ($1, $0) })
}
