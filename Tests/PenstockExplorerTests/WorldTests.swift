// SPDX-License-Identifier: Apache-2.0
import PenstockExplorer
import Testing

/// The proof in little, and that a run is a function of its seed. The whole of it is
/// `penstock explore`.
@Suite struct Explorations {
  @Test(arguments: [
    "fresh queue", "leased messages", "full segment", "parked messages", "crashes of recovery",
    "groups", "dead letters", "dead letters of groups", "transactions",
    "damage",
  ])
  func smallHistoriesKeepAllPromises(_ name: String) throws {
    let family = try #require(Family.all(length: 1).first { $0.name == name })
    let (tally, failure) = Explorer().explore(family)
    #expect(failure == nil, "\(failure.map(\.description) ?? "")")
    #expect(tally.histories == family.count)
    #expect(tally.states > tally.points)
  }

  /// What the proof says of compaction, it says of compactions that happened.
  @Test func aHistoryComesByAllThatKeepsTheLogSmall() throws {
    let filler = "send 2 1 16000, settle"
    let drained = "\(filler), \(filler), receive 2 10 90000, settle"
    let history = try #require(
      Step.history(
        """
        create 0, create 1, create 2, send 1 9 100, settle, send 1 1 100 3000000, settle, \
        receive 1 1 3000000, settle, \(drained), delete 1, delete 2, settle, \
        \(drained), delete 3, delete 4, settle, \(filler), \(filler), restart, \(filler)
        """))
    let (tally, failure) = Explorer().replay(history, lastSteps: 1)
    #expect(failure == nil, "\(failure.map(\.description) ?? "")")
    for event in [Event.restoredACheckpoint, .replayedMoves, .replayedDraws, .removedSegment] {
      #expect(tally.checks.events[event, default: 0] > 0, "\(event.rawValue)")
    }
  }

  @Test func largeHistoriesKeepAllPromises() {
    let (tally, failure) = Explorer().swarm(seed: 1_000_000, count: 150)
    #expect(failure == nil, "\(failure.map(\.description) ?? "")")
    #expect(tally.points > 150)
  }

  @Test func oneSeedGivesOneTrace() {
    var one = Explorer()
    one.threads = 1
    let first = one.swarm(seed: 7, count: 20).0.hash
    #expect(one.swarm(seed: 7, count: 20).0.hash == first)
    #expect(Explorer().swarm(seed: 7, count: 20).0.hash == first)
    #expect(one.swarm(seed: 8, count: 20).0.hash != first)
  }

  @Test func textOfAHistoryIsReadBack() throws {
    let text = "machine 1 0 0, create 0, send 0 2 100 -5, crash 3 99 1, settle"
    #expect(Step.text(try #require(Step.history(text))) == text)
    #expect(Step.history("explode 0") == nil)
    #expect(Step.history("send zero") == nil)
    #expect(Step.history("") == [])
  }

  @Test func aHistoryWithoutSenseIsTakenAsFarAsItGoes() throws {
    let history = try #require(
      Step.history("delete 3, send 9 -1 99999999, hide 1, receive 2 0 -1, turn 77, during -1 5"))
    #expect(Explorer().replay(history).1 == nil)
  }
}
