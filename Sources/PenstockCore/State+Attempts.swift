// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

// Receives from FIFO queues that may be asked again: whoever lost the answer to one names it by the
// same id, and gets the same messages with the same handles, as long as nothing was done to them.

extension State {
  struct Attempt: Hashable, Sendable {
    struct Lease: Hashable, Sendable {
      var slot: UInt32
      var message: UInt64
      var token: UInt64
      var deadline: Int64
    }
    var leases: [Lease]
    /// In milliseconds; counted from the first receive.
    var expiresAt: Int64
  }

  /// What an id stands for.
  public enum KnownAttempt: Sendable {
    case none
    case messages([Resident])
    /// Something was done to the messages since, or their leases have ended.
    case changed
  }

  /// How long a receive may be repeated.
  static let attemptWindow: Int64 = 300_000

  mutating func attempt(
    _ q: Int, _ hash: TextHash, _ messages: [Record.LeasedMessage], _ lsn: UInt64
  ) throws(RecordError) {
    guard table[q].settings.isFIFO else {
      throw RecordError(description: "LSN \(lsn) repeats a receive of a standard queue")
    }
    var leases: [Attempt.Lease] = []
    for leased in messages {
      try check(q, leased.slot, leased.message, lsn)
      guard slab[leased.slot].state.hasActivity else {
        throw RecordError(description: "LSN \(lsn) names message \(leased.message), not leased")
      }
      let activity = activities[Int(slab[leased.slot].link)]
      leases.append(
        .init(
          slot: leased.slot, message: leased.message, token: activity.token,
          deadline: activity.deadline))
    }
    forgetAttempts(q)
    let known = table[q].groups.attempts[hash]
    if known == nil { table[q].groups.attemptOrder.append(hash) }
    table[q].groups.attempts[hash] = Attempt(
      leases: leases,
      expiresAt: known?.expiresAt ?? time.adding(Self.attemptWindow).milliseconds)
  }

  /// Forgets what cannot be repeated any more.
  private mutating func forgetAttempts(_ q: Int) {
    while let hash = table[q].groups.attemptOrder.first,
      let attempt = table[q].groups.attempts[hash], attempt.expiresAt <= time.milliseconds
    {
      table[q].groups.attempts[hash] = nil
      _ = table[q].groups.attemptOrder.popFirst()
    }
  }

  /// What a receive of this id would repeat.
  public func attempt(_ id: QueueID, _ hash: TextHash) -> KnownAttempt {
    guard let q = places[id.value], let known = table[q].groups.attempts[hash],
      known.expiresAt > time.milliseconds
    else { return .none }
    for lease in known.leases {
      let handle = LeaseHandle(
        queue: id, slot: lease.slot, message: lease.message, token: lease.token)
      guard isLive(q, slot: lease.slot, message: lease.message), isHeld(handle),
        activities[Int(slab[lease.slot].link)].deadline == lease.deadline
      else { return .changed }
    }
    return .messages(known.leases.map { resident($0.slot) })
  }

  /// The record that starts the timeout of a lease anew.
  public func decideRepeat(_ id: QueueID, _ leased: Resident, timeout: Int64) -> Entry {
    Entry(
      queue: id, time: time,
      record: .leaseChanged(
        message: leased.message, slot: leased.slot, deadline: time.adding(max(0, timeout))))
  }

  /// The record that lets a receive be repeated, behind those of its leases.
  public func decideAttempt(_ id: QueueID, _ hash: TextHash, _ found: [Resident]) -> Entry {
    let messages = found.map { Record.LeasedMessage(message: $0.message, slot: $0.slot) }
    return Entry(queue: id, time: time, record: .attempted(hash, messages))
  }
}
