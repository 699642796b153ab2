// SPDX-License-Identifier: Apache-2.0

/// What the clients of one phase were told, message by message, and what came back in the end.
///
/// A pure value: workers report events, nobody's clock is read. A message is named by its number,
/// which its body carries.
///
/// Invariants
/// - I1: `submitted = acknowledged + rejected + unanswered`.
/// - I2: `acknowledged = recovered + deleted + deletedUnanswered + resurrected + setAside + lost`,
///   less the messages in `resurrected` whose send was not acknowledged.
package struct Ledger: Sendable {
  package enum Answer: UInt8, Sendable { case none, acknowledged, rejected }

  /// One message that a producer began to send.
  struct Entry: Sendable {
    var producer: UInt8
    var round: UInt16
    var answer = Answer.none
    var deleteSubmitted = false
    /// Seen in a drain, which is a message that came back.
    var recovered = false
    var resurrected = false
    var duplicated = false
    /// The event number of the delete's acknowledgement.
    var deletedEvent: UInt64 = 0
    /// Hash of the message id the send was answered with; 0 is none.
    var identity: UInt64 = 0
    /// The same of the first drain that saw the message.
    var recoveredIdentity: UInt64 = 0
  }

  /// Sums over a phase. Every message is in exactly one of the groups that I1 and I2 name.
  package struct Counts: Codable, Equatable, Sendable {
    package var submitted = 0
    package var acknowledged = 0
    /// Answered with an error.
    package var rejected = 0
    /// No answer came before the connection ended.
    package var unanswered = 0
    /// Acknowledged, no delete of it acknowledged, and it came back.
    package var recovered = 0
    /// A delete was acknowledged, and it stayed away.
    package var deleted = 0
    /// A delete was submitted but not acknowledged, and it did not come back.
    package var deletedUnanswered = 0
    /// Acknowledged, no delete of it submitted, and it did not come back.
    package var lost = 0
    /// One body came back under two message ids.
    package var duplicated = 0
    /// Came although its delete had been acknowledged before it was asked for.
    package var resurrected = 0
    /// The part of `resurrected` whose send was never acknowledged.
    package var resurrectedUnacknowledged = 0
    /// Would be lost, but the system says of as many messages that their bytes are damaged.
    package var setAside = 0
    /// A body that was never sent, is damaged, or came under another message id than its send's.
    package var unknown = 0
    /// Came back although its send was not acknowledged. Allowed.
    package var unacknowledgedRecovered = 0

    package init() {}

    /// What invariants I1 and I2 say.
    package var addsUp: Bool {
      submitted == acknowledged + rejected + unanswered
        && acknowledged
          == recovered + deleted + deletedUnanswered + setAside + lost
          + resurrected - resurrectedUnacknowledged
    }

    /// The system named so many messages as damaged: as many are not lost without a word.
    package mutating func setAside(_ told: Int) {
      let named = min(lost, max(0, told))
      setAside += named
      lost -= named
    }

    /// True when the system broke a promise.
    package var isBroken: Bool { lost > 0 || resurrected > 0 || unknown > 0 }

    package static func + (left: Counts, right: Counts) -> Counts {
      var sum = left
      sum.submitted += right.submitted
      sum.acknowledged += right.acknowledged
      sum.rejected += right.rejected
      sum.unanswered += right.unanswered
      sum.recovered += right.recovered
      sum.deleted += right.deleted
      sum.deletedUnanswered += right.deletedUnanswered
      sum.setAside += right.setAside
      sum.lost += right.lost
      sum.duplicated += right.duplicated
      sum.resurrected += right.resurrected
      sum.resurrectedUnacknowledged += right.resurrectedUnacknowledged
      sum.unknown += right.unknown
      sum.unacknowledgedRecovered += right.unacknowledgedRecovered
      return sum
    }
  }

  /// Broken promises are described up to this many.
  static let exampleLimit = 5

  private(set) var entries: [Entry] = []
  private var event: UInt64 = 0
  private var unknown = 0
  /// The first bodies that count as unknown, in words.
  package private(set) var unknownExamples: [String] = []

  package init() {}

  package var count: Int { entries.count }

  /// A mark in the order of events; a receive that begins now sees what was acknowledged before.
  package mutating func mark() -> UInt64 {
    event += 1
    return event
  }

  /// A producer is about to send a message. Returns its number.
  package mutating func submit(producer: Int, round: Int) -> Int {
    entries.append(
      Entry(
        producer: UInt8(truncatingIfNeeded: producer), round: UInt16(truncatingIfNeeded: round)))
    return entries.count - 1
  }

  package mutating func acknowledge(_ number: Int, id: String) {
    entries[number].answer = .acknowledged
    entries[number].identity = Self.hash(id)
  }

  package mutating func reject(_ number: Int) { entries[number].answer = .rejected }

  package mutating func submitDelete(_ number: Int) { entries[number].deleteSubmitted = true }

  package mutating func acknowledgeDelete(_ number: Int) {
    guard entries[number].deletedEvent == 0 else { return }
    entries[number].deletedEvent = mark()
  }

  /// A message came. `asked` is the mark from before the receive was sent. Returns false for a
  /// number that was never submitted.
  @discardableResult
  package mutating func see(_ number: Int, id: String, asked: UInt64, draining: Bool) -> Bool {
    guard entries.indices.contains(number) else {
      seeUnknown("message \(number) was never sent (id \(id))")
      return false
    }
    let identity = Self.hash(id)
    let entry = entries[number]
    if entry.deletedEvent != 0, entry.deletedEvent < asked { entries[number].resurrected = true }
    guard draining else { return true }
    if entry.recoveredIdentity == 0 {
      entries[number].recovered = true
      entries[number].recoveredIdentity = identity
      if entry.identity != 0, entry.identity != identity {
        seeUnknown("message \(number) came under another id than it was sent with")
      }
    } else if entry.recoveredIdentity != identity {
      entries[number].duplicated = true
    }
    return true
  }

  package mutating func seeUnknown(_ description: String) {
    unknown += 1
    if unknownExamples.count < Self.exampleLimit { unknownExamples.append(description) }
  }

  /// Messages that have to be there and were not seen in a drain yet.
  package var missing: Int { entries.count { Self.isLost($0) } }

  package var counts: Counts {
    var counts = Counts()
    counts.unknown = unknown
    for entry in entries {
      counts.submitted += 1
      if entry.duplicated { counts.duplicated += 1 }
      if entry.resurrected { counts.resurrected += 1 }
      switch entry.answer {
      case .none: counts.unanswered += 1
      case .rejected: counts.rejected += 1
      case .acknowledged: counts.acknowledged += 1
      }
      guard entry.answer == .acknowledged else {
        if entry.resurrected { counts.resurrectedUnacknowledged += 1 }
        if entry.recovered { counts.unacknowledgedRecovered += 1 }
        continue
      }
      if entry.resurrected { continue }
      // A drain deletes what it sees; those messages count as recovered.
      if entry.recovered {
        counts.recovered += 1
      } else if entry.deletedEvent != 0 {
        counts.deleted += 1
      } else if entry.deleteSubmitted {
        counts.deletedUnanswered += 1
      } else {
        counts.lost += 1
      }
    }
    return counts
  }

  /// The first lost and resurrected messages, in words.
  package var examples: [String] {
    var found = unknownExamples
    for (number, entry) in entries.enumerated() where found.count < Self.exampleLimit {
      let name = "message \(number) of producer \(entry.producer), round \(entry.round)"
      if entry.resurrected { found.append("\(name): deleted, and came back") }
      if Self.isLost(entry) { found.append("\(name): acknowledged, and gone") }
    }
    return found
  }

  /// Takes back the judgement on what was not looked for: what is missing counts as if a delete
  /// of it were under way.
  package mutating func forgetMissing() {
    for number in entries.indices where Self.isLost(entries[number]) {
      entries[number].deleteSubmitted = true
    }
  }

  private static func isLost(_ entry: Entry) -> Bool {
    entry.answer == .acknowledged && !entry.deleteSubmitted && !entry.recovered
      && !entry.resurrected
  }

  /// FNV-1a, never 0.
  private static func hash(_ text: String) -> UInt64 { max(1, FNV.hash(text.utf8)) }
}

/// The hash FNV-1a of 64 bits: stable, small, and enough against accidents.
enum FNV {
  static func hash(_ bytes: some Sequence<UInt8>) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    return hash
  }
}
