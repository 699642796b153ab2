// SPDX-License-Identifier: Apache-2.0
import PenstockExplorer
import Testing

/// A planted bug, a history that shows it, and the check that must see it.
struct Planted: Sendable, CustomTestStringConvertible {
  var canary: Canary
  var invariant: Invariant
  var history: String
  var testDescription: String { "\(canary.rawValue) breaks \(invariant.rawValue)" }

  init(_ canary: Canary, _ invariant: Invariant, _ history: String) {
    self.canary = canary
    self.invariant = invariant
    self.history = history
  }

  private static let sent = "create 0, settle, send 0 1 100, settle"
  private static let leased = "create 0, settle, send 0 2 100, settle, receive 0 1 30000, settle"

  /// A message that the next receive moves to the dead letters.
  private static let exhausted =
    "create 3, create 0 0 1, settle, send 0 1 100, settle, receive 0 1 0, settle"
  private static let grouped = "create 0 1, settle, send 0 2 100 0 1 1, settle"

  /// Three of these fill a segment; with the next one it ends, and a checkpoint is written.
  private static let filler = "send 2 1 16000"
  private static let parked = "create 0, settle, send 0 7 100, settle"
  /// A message that is leased, one that is delayed, and little else that lives in the first
  /// segments; when the present one ends they are compacted.
  private static let dead =
    "create 0, create 1, create 2, send 1 2 100, settle, send 1 1 100 3000000, settle, "
    + "receive 1 1 3000000, settle, \(filler), settle, \(filler), settle, "
    + "receive 2 10 90000, settle, delete 1, delete 2, settle, \(filler), settle, "
    + "\(filler), settle, receive 2 10 90000, settle, delete 3, delete 4, settle, \(filler), settle"
  /// Behind checkpoints, a segment of which little lives any more.
  private static let emptied =
    "create 0, create 1, create 2, send 1 2 100, settle, "
    + Array(repeating: "\(filler), settle, ", count: 9).joined()
    + "receive 2 4 90000, settle, delete 0, delete 1, delete 2, delete 3"
  /// A message in a segment before the checkpoint's.
  private static let spoiled =
    "machine 0 0 0 0 1, create 0, settle, pass 200, settle, send 0 1 16000, settle, restart, settle"
  /// The keeper takes turns, and the writer none.
  private static let kept = Array(repeating: "turn 4", count: 24).joined(separator: ", ")

  static let all: [Planted] = [
    Planted(.answersBeforeSync, .acknowledgedIsRecovered, sent),
    Planted(.answersOutOfOrder, .answersComeInOrder, "create 0, create 1, settle"),
    Planted(.skipsTheDirectorySync, .recoveryIsStable, sent),
    Planted(.skipsTheHeaderSync, .legalCrashIsAccepted, sent),
    Planted(.skipsTheCutSync, .legalCrashIsAccepted, sent),
    Planted(.forgetsHead, .damageIsRefused, "machine 0 0 0 0 1, \(sent), pass 200, settle"),
    Planted(
      .reusesLSNs, .acknowledgedIsRecovered,
      """
      machine 1 0 1, create 0, settle, crash 5 686778 0, send 0 1 4 500, settle, pass 31000, \
      receive 0 1 300000, settle, hide 23 20000, settle, send 0 1 500 0, receive 0 1 300000, \
      settle, purge 0, settle, send 0 1 50 60000, settle, send 0 1 4 0, delete 11, restart
      """),
    Planted(.skipsTheCut, .legalCrashIsAccepted, sent),
    Planted(
      .ignoresFailedSyncs, .acknowledgedIsRecovered,
      "\(sent), fault 1 0 3 0, send 0 1 100, settle"),
    Planted(
      .showsUnsynced, .deliveredIsRecovered,
      "create 0, settle, send 0 1 100, receive 0 1 30000, during 2 1, settle, turn 1, settle"),
    Planted(.splitsGroups, .groupsAreWhole, "create 0, settle, send 0 2 100, settle"),
    Planted(
      .trustsTheTail, .recoveredWasSubmitted,
      "machine 1 0 0, create 0, settle, send 0 1 3000, settle"),
    Planted(.cutsWhatWasDurable, .damageIsRefused, "machine 0 0 0 0 1, \(sent), pass 200, settle"),
    Planted(
      .refusesUnsyncedWindows, .legalCrashIsAccepted,
      "machine 1 0 0, create 0, settle, send 0 10 20, settle, receive 0 10 0, turn 0, "
        + "receive 0 10 0, turn 0, receive 0 10 0, turn 0, send 0 1 100, settle"),
    Planted(.receivesNewestFirst, .orderIsKept, "create 0, settle, send 0 2 100, settle"),
    Planted(
      .receivesNewestFirst, .answersAgree,
      "create 0, settle, send 0 2 100, settle, receive 0 2 30000, settle"),
    Planted(.forgetsTheWriter, .neverStuck, "create 0, settle"),
    Planted(.forgetsTheWriter, .recoveredGoesOn, ""),
    Planted(.forgetsLeases, .leasesExclude, leased),
    Planted(.forgetsLeases, .closedComesBackWhole, "\(leased), restart"),
    Planted(.forgetsLeaseChanges, .timersHold, "\(leased), hide 0 0, settle"),
    Planted(.forgetsDelays, .timersHold, "create 0, settle, send 0 1 100 60000, settle"),
    Planted(.forgetsDeletes, .goneStaysGone, "\(leased), delete 0, settle"),
    Planted(.forgetsPurges, .goneStaysGone, "\(sent), purge 0, settle"),
    Planted(.forgetsSettings, .recoveredIsOnePast, "\(sent), retain 0 10, settle"),
    Planted(.prolongsLeases, .timersHold, leased),
    Planted(
      .forgetsReceiveCounts, .receiveCountsHold,
      "create 0, settle, send 0 1 100, settle, receive 0 1 0, settle, receive 0 1 30000, settle"),
    Planted(.appliesSendsTwice, .stateFitsTogether, sent),
    Planted(.skipsTheCheckpointSync, .legalCrashIsAccepted, "\(dead), \(filler), settle"),
    Planted(.removesTooEarly, .legalCrashIsAccepted, "\(emptied), turn 0, \(kept)"),
    Planted(
      .snapshotsTheUndurable, .legalCrashIsAccepted,
      "machine 0 0 1 0 0 4, create 0, restart, settle, kill 24, send 0 10 16000 60000, settle"),
    Planted(
      .removesBehindOneCheckpoint, .spareIsSpared, "machine 0 0 0 0 1, \(dead), delete 0, settle"),
    Planted(.forgetsTimersOfCheckpoints, .leasesExclude, "\(dead), \(filler), settle"),
    Planted(.ignoresMissingSegments, .damageIsRefused, spoiled),
    Planted(
      .showsUndurableDraws, .answersAgree,
      """
      machine 1 0 0 0 0 4, create 0, send 0 2 4 0, receive 0 3 300000, send 0 10 4 0, restart, \
      settle, during 2 3, crash 12 879649 10, receive 0 10 1000, delete 32, settle, \
      receive 0 1 30000, settle, send 0 10 50 500, receive 0 1 0, receive 0 1 0, settle, \
      receive 0 10 0, settle, hide 45 700
      """),
    Planted(.losesDamaged, .damagedIsSetAside, spoiled),
    Planted(.forgetsParked, .acknowledgedIsRecovered, parked),
    Planted(
      .forgetsDraws, .closedComesBackWhole,
      "\(parked), receive 0 2 30000, settle, restart, settle"),
    Planted(.losesTransfers, .movesAreWhole, "\(exhausted), receive 0 1 30000, settle"),
    Planted(.copiesTransfers, .movesAreWhole, "\(exhausted), receive 0 1 30000, settle"),
    Planted(.forgetsTransfers, .closedComesBackWhole, "\(exhausted), receive 0 1 0, restart"),
    Planted(
      .forgetsSecondSteps, .transactionsAreWhole, "\(leased), create 1, commit 0 1 100, settle"),
    Planted(.splitsGroups, .transactionsAreWhole, "\(leased), create 1, commit 0 1 100, settle"),
    Planted(.forgetsRepetitions, .repetitionsAreKnown, "\(grouped)"),
    Planted(.forgetsGroups, .groupRunsExclude, "\(grouped), receive 0 1 30000, settle"),
    Planted(.receivesGroupsNewestFirst, .groupOrderIsKept, grouped),
    Planted(
      .receivesGroupsNewestFirst, .groupOrderIsKept,
      "create 0 1, settle, send 0 2 100, settle, receive 0 2 30000, settle"),
    Planted(.forgetsMoves, .legalCrashIsAccepted, "\(dead), \(filler), settle"),
  ]
}

/// Every check can fail, and every planted bug makes one fail.
@Suite struct Canaries {
  private func replay(_ planted: Planted, _ canary: Canary?) throws -> Failure? {
    var explorer = Explorer()
    explorer.canary = canary
    explorer.threads = 1
    let history = try #require(Step.history(planted.history))
    return explorer.replay(history, lastSteps: 2).1
  }

  @Test(arguments: Planted.all) func isCaught(_ planted: Planted) throws {
    let failure = try #require(try replay(planted, planted.canary))
    #expect(failure.violation.invariant == planted.invariant, "\(failure)")
  }

  @Test(arguments: Planted.all) func theSameHistoryWithoutTheBugPasses(_ planted: Planted) throws {
    let failure = try replay(planted, nil)
    #expect(failure == nil, "\(failure.map(\.description) ?? "")")
  }

  @Test func everyBugIsPlanted() {
    #expect(Set(Planted.all.map(\.canary)) == Set(Canary.allCases))
  }

  @Test func everyInvariantHasABugThatBreaksIt() {
    #expect(Set(Planted.all.map(\.invariant)) == Set(Invariant.allCases))
  }

  /// What finds a bug by seed also makes its history small, and the text repeats it.
  @Test func aFailureBySeedIsMadeSmallAndRepeats() throws {
    var planted = Explorer()
    planted.canary = .forgetsDeletes
    let explorer = planted
    // What was deleted may also be named by a later record, which is then refused.
    let odd = stride(from: UInt64(1), to: 200, by: 2)
    let found = odd.lazy.compactMap { explorer.swarm(seed: $0, count: 1).1 }
      .first { $0.violation.invariant == .goneStaysGone }
    let failure = try #require(found)
    let history = try #require(Step.history(failure.history))
    #expect(history.count <= 8, "\(failure.history)")
    #expect(explorer.replay(history).1?.violation.invariant == .goneStaysGone)
  }
}
