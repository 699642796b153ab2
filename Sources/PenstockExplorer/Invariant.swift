// SPDX-License-Identifier: Apache-2.0

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

/// How often each invariant was looked at.
package struct Checks: Sendable {
  package private(set) var counts = [Int](repeating: 0, count: Invariant.allCases.count)

  package init() {}

  /// Counts a look and throws when the invariant does not hold.
  mutating func check(
    _ invariant: Invariant, _ holds: Bool, _ story: @autoclosure () -> String
  ) throws(Violation) {
    counts[Self.index[invariant, default: 0]] += 1
    if !holds { throw Violation(invariant, story()) }
  }

  package func count(_ invariant: Invariant) -> Int { counts[Self.index[invariant, default: 0]] }

  package mutating func add(_ other: Checks) {
    for index in counts.indices { counts[index] += other.counts[index] }
  }

  private static let index = Dictionary(
    uniqueKeysWithValues: Invariant.allCases.enumerated().map { ($1, $0) })
}
