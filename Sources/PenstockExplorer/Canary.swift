// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockSystem
internal import PenstockTesting

/// A planted bug that the proof must catch, so that it is known to be able to.
///
/// Some leave calls to the file system out, as code would that forgot them; some spoil the replay
/// of the log; the others are switches in the engine itself: see `PlantedBug`.
package enum Canary: String, CaseIterable, Sendable {
  case answersBeforeSync
  case answersOutOfOrder
  case skipsTheDirectorySync
  case skipsTheHeaderSync
  case skipsTheCutSync
  case forgetsHead
  case reusesLSNs
  case skipsTheCut
  case ignoresFailedSyncs
  case showsUnsynced
  case splitsGroups
  case trustsTheTail
  case cutsWhatWasDurable
  case refusesUnsyncedWindows
  case receivesNewestFirst
  case forgetsTheWriter
  case forgetsLeases
  case forgetsLeaseChanges
  case forgetsDelays
  case forgetsDeletes
  case forgetsPurges
  case forgetsSettings
  case prolongsLeases
  case forgetsReceiveCounts
  case appliesSendsTwice
  case skipsTheCheckpointSync
  case removesTooEarly
  case snapshotsTheUndurable
  case removesBehindOneCheckpoint
  case forgetsTimersOfCheckpoints
  case ignoresMissingSegments
  case showsUndurableDraws
  case losesDamaged
  case forgetsParked
  case forgetsDraws
  case forgetsMoves
  case losesTransfers
  case copiesTransfers
  case forgetsTransfers
  case forgetsSecondSteps
  case forgetsRepetitions
  case forgetsGroups
  case receivesGroupsNewestFirst

  var inEngine: PlantedBug? {
    switch self {
    case .answersBeforeSync: .answersBeforeSync
    case .answersOutOfOrder: .answersOutOfOrder
    case .showsUnsynced: .showsUnsynced
    case .splitsGroups: .splitsGroups
    case .trustsTheTail: .trustsTheTail
    case .cutsWhatWasDurable: .cutsWhatWasDurable
    case .refusesUnsyncedWindows: .refusesUnsyncedWindows
    case .receivesNewestFirst: .receivesNewestFirst
    case .forgetsTheWriter: .forgetsTheWriter
    case .reusesLSNs: .reusesLSNs
    case .removesTooEarly: .removesTooEarly
    case .snapshotsTheUndurable: .snapshotsTheUndurable
    case .removesBehindOneCheckpoint: .removesBehindOneCheckpoint
    case .forgetsTimersOfCheckpoints: .forgetsTimersOfCheckpoints
    case .ignoresMissingSegments: .ignoresMissingSegments
    case .showsUndurableDraws: .showsUndurableDraws
    case .losesDamaged: .losesDamaged
    case .copiesTransfers: .copiesTransfers
    case .receivesGroupsNewestFirst: .receivesNewestFirst
    default: nil
    }
  }

  func handling(of call: Call) -> SimulatedProcess.Handling {
    switch self {
    case .skipsTheDirectorySync where call.kind == .syncDirectory: .leftOut
    case .skipsTheHeaderSync where call.kind == .syncData && call.path.hasSuffix(".next"): .leftOut
    case .skipsTheCutSync where call.kind == .sync && call.path.hasSuffix(".seg"): .leftOut
    case .skipsTheCheckpointSync where call.kind == .sync && call.path.hasSuffix(".partial"):
      .leftOut
    // The slot that counts the second segment.
    case .forgetsHead where call.path.hasSuffix("HEAD") && call.offset == 4096: .leftOut
    case .skipsTheCut where call.kind == .truncate: .leftOut
    case .ignoresFailedSyncs where call.kind == .syncData || call.kind == .sync: .ignoringErrors
    default: .asAsked
    }
  }

  var replaying: (@Sendable (inout Entry) -> Int)? {
    switch self {
    case .forgetsLeases: { if case .leased = $0.record { 0 } else { 1 } }
    case .forgetsLeaseChanges: { if case .leaseChanged = $0.record { 0 } else { 1 } }
    case .forgetsDeletes: { if case .deleted = $0.record { 0 } else { 1 } }
    case .forgetsPurges: { if case .purged = $0.record { 0 } else { 1 } }
    case .forgetsSettings: { if case .queueChanged = $0.record { 0 } else { 1 } }
    case .appliesSendsTwice: { if case .sent = $0.record { 2 } else { 1 } }
    case .forgetsDraws: { if case .drawn = $0.record { 0 } else { 1 } }
    case .forgetsMoves: { if case .moved = $0.record { 0 } else { 1 } }
    case .forgetsTransfers: { if case .transferred = $0.record { 0 } else { 1 } }
    case .losesTransfers:
      { entry in
        if case .transferred(let moved) = entry.record {
          entry.record = .deleted(message: moved.message, slot: moved.slot)
        }
        return 1
      }
    case .forgetsSecondSteps:
      {
        let last = Last()
        return { entry in
          defer { last.entry = entry }
          guard case .sent = entry.record, case .deleted? = last.entry?.record else { return 1 }
          return last.entry?.time == entry.time ? 0 : 1
        }
      }()
    case .forgetsRepetitions:
      { entry in
        if case .sent(var sent) = entry.record {
          sent.deduplication = nil
          entry.record = .sent(sent)
        }
        return 1
      }
    case .forgetsGroups:
      {
        let received = Received()
        return { entry in
          if case .sent(var sent) = entry.record, sent.group != nil {
            let number = UInt64(received.messages.count)
            received.messages.insert(number)
            sent.group = TextHash(high: number, low: number)
            entry.record = .sent(sent)
          }
          return 1
        }
      }()
    case .forgetsParked: { if case .sent(let sent) = $0.record, sent.isParked { 0 } else { 1 } }
    case .forgetsDelays:
      { entry in
        if case .sent(var sent) = entry.record {
          sent.visibleAt = nil
          entry.record = .sent(sent)
        }
        return 1
      }
    case .prolongsLeases:
      { entry in
        if case .leased(let message, let slot, let deadline) = entry.record {
          entry.record = .leased(message: message, slot: slot, deadline: deadline.adding(1000))
        }
        return 1
      }
    case .forgetsReceiveCounts:
      {
        let received = Received()
        return { entry in
          if case .leased(let message, let slot, let deadline) = entry.record,
            !received.messages.insert(message).inserted
          {
            entry.record = .leaseChanged(message: message, slot: slot, deadline: deadline)
          }
          return 1
        }
      }()
    default: nil
    }
  }

  private final class Last: @unchecked Sendable {  // a replay has one thread
    var entry: Entry?
  }

  private final class Received: @unchecked Sendable {  // a replay has one thread
    var messages: Set<UInt64> = []
  }
}
