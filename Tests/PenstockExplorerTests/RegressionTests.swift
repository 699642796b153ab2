// SPDX-License-Identifier: Apache-2.0
import PenstockExplorer
import Testing

/// Histories that once broke a promise, as `penstock explore` printed them.
@Suite struct HistoriesThatOnceWentWrong {
  /// - Parameter crashes: whether power is lost everywhere in the last step, too.
  private func replay(_ text: String, crashes: Bool = true) throws {
    let history = try #require(Step.history(text))
    let failure = Explorer().replay(history, lastSteps: crashes ? 1 : 0).1
    #expect(failure == nil, "\(failure.map(\.description) ?? "")")
  }

  @Test func whatHasExpiredStaysAwayWhenTheRetentionGrows() throws {
    try replay("create 0, send 0 5 2000 0, pass 90000, retain 0 60, retain 0 345600")
  }

  @Test func aHandleOfALostMessageNamesNoOther() throws {
    try replay(
      """
      machine 1 0 1, create 0, settle, crash 5 686778 0, send 0 1 4 500, settle, pass 31000, \
      receive 0 1 300000, settle, hide 23 20000, settle, send 0 1 500 0, receive 0 1 300000, \
      settle, purge 0, settle, send 0 1 50 60000, settle, send 0 1 4 0, delete 11, restart
      """)
  }

  /// Expiries that could not be logged kept it waiting for ever.
  @Test func aReceiveOnAFullDiskIsAnswered() throws {
    try replay(
      """
      machine 1 0 0, create 0, settle, create 1, fill 1, settle, send 0 10 4 0, settle, \
      retain 1 10, receive 0 1 30000, settle, send 1 1 10000 0, receive 1 1 0, settle, delete 23, \
      settle, delete 26, restart, retain 0 10, restart, send 1 1 4 500, restart, pass 90000, \
      receive 1 3 1000
      """)
  }

  @Test func aShortenedSegmentIsNoCleanEnd() throws {
    try replay("machine 0 0 0 0 1, create 0, settle, send 0 1 100, settle, pass 200, settle")
  }

  /// Compaction tried the segment of a purged queue without end while nothing else was logged.
  @Test func compactionOfWhatWasPurgedComesToRest() throws {
    try replay(
      """
      machine 0 1 0, create 0, send 0 10 4 0, send 0 10 10000 60000, send 0 5 10000 60000, \
      send 0 2 2000 0, send 0 10 10000 0, settle, kill 1, send 0 10 10000 0, settle, remove 0, \
      settle
      """, crashes: false)
  }

  /// A message was received that had just been read from where it was parked; power took the record
  /// of that, so that its handle named a slot that was another's.
  @Test func aDeleteOfAMessageThatWasParkedHolds() throws {
    try replay(
      """
      machine 1 0 0, create 0, settle, crash 6 147188 7, send 0 10 2000 0, settle, send 0 1 50 0, \
      settle, receive 0 10 1000, send 0 5 4 0, settle, turn 3, crash 18 658527 0, \
      receive 0 1 30000, settle, delete 20, settle
      """)
  }

  /// The keeper ended a segment that had no record yet: the next had its name and another number.
  @Test func aSegmentWithoutARecordIsNotEnded() throws {
    try replay(
      """
      machine 0 0 0 0 0 4, create 0, send 0 10 16000 0, receive 0 1 1000, restart, remove 0, \
      restart, kill 8, delete 5, settle, pass 31000, settle
      """)
  }

  /// Receives that were answered with the failure of a read seemed to wait for room.
  @Test func aReceiveOfUnreadableParkedMessagesIsAnswered() throws {
    try replay(
      """
      machine 0 1 0, create 0, send 0 10 50 0, settle, crash 0 377777 9, send 0 2 10000 0, \
      fault 6 1 2 1, receive 0 10 300000, receive 0 3 0
      """, crashes: false)
  }

  /// The last commit of a full segment had no witness: damage to it looked like a torn write.
  @Test func theLastCommitOfAFullSegmentHasAWitness() throws {
    try replay(
      """
      machine 0 0 0 0 1, create 2, settle, send 2 1 16000, settle, send 2 1 16000, settle, \
      send 2 1 16000, settle
      """)
  }

  /// A receive moved what was received too often far behind what it gave, and gave too much.
  @Test func aReceiveThatMovesLooksNoFurtherThanItGives() throws {
    try replay(
      """
      machine 0 0 0 0 0 16, create 3 0 0, create 0 0 1, settle, send 0 10 50 0, receive 0 3 0, \
      send 0 10 50 60000, pass 31000, send 0 1 16000, receive 0 10 0, pass 31000, receive 0 3 30000
      """)
  }

  /// What a delay made visible was given before what was parked, though it was sent later.
  @Test func whatWasParkedComesBeforeWhatWasSentLater() throws {
    try replay(
      """
      create 0, settle, send 0 7 100, settle, send 0 1 100 500, settle, receive 0 4 30000, \
      pass 600, receive 0 1 30000, settle
      """)
  }

  /// Compaction never ended when parked messages that it was to move were drawn meanwhile.
  @Test func compactionEndsWhenItsMessagesAreDrawnMeanwhile() throws {
    try replay(
      """
      machine 0 0 0 0 1, create 2, settle, send 2 1 16000, settle, send 2 1 16000, settle, \
      receive 2 10 90000, settle, delete 0, delete 1, settle, send 2 1 16000, settle, \
      send 2 1 16000, settle, receive 2 10 90000, settle, delete 2, delete 3, settle, \
      send 2 1 16000, settle, send 2 1 16000, settle, send 2 1 16000, settle, send 2 1 16000, \
      settle, send 2 1 16000, settle, send 2 1 16000, settle, restart
      """)
  }
}
