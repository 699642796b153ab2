// SPDX-License-Identifier: Apache-2.0

/// A bug that a test plants in the engine, to see that the proof would catch it. `package`: no
/// program can turn one on, and a store without one does not behave differently.
package enum PlantedBug: Sendable, Hashable {
  /// Answers what asked for a sync as soon as it is appended.
  case answersBeforeSync
  /// Releases the answers of one sync in the reverse order.
  case answersOutOfOrder
  /// Delivers messages whose sends are not durable.
  case showsUnsynced
  /// Writes each record of a request in a frame of its own.
  case splitsGroups
  /// Believes the newest segment's frames without their checksums.
  case trustsTheTail
  /// Cuts the log at damage, whatever frames behind it say was durable.
  case cutsWhatWasDurable
  /// Refuses whole frames behind a torn one, though nobody was told of either.
  case refusesUnsyncedWindows
  /// Gives out again the LSNs that a loss of power took.
  case reusesLSNs
  /// Delivers the newest message first.
  case receivesNewestFirst
  /// Does not wake the writer.
  case forgetsTheWriter
  /// Removes a segment before what was moved out of it is durable.
  case removesTooEarly
  /// Writes a checkpoint of records that are not durable yet.
  case snapshotsTheUndurable
  /// Removes what lies before the newest checkpoint, not before the older one.
  case removesBehindOneCheckpoint
  /// Takes checkpoints to hold neither leases nor delays.
  case forgetsTimersOfCheckpoints
  /// Opens a store in which segments are missing that hold messages.
  case ignoresMissingSegments
  /// Gives out a handle of a message whose slot a loss of power would take.
  case showsUndurableDraws
  /// Leaves a message that it moves to the dead letters in its queue, too, when it replays that.
  case copiesTransfers
  /// Leaves a damaged message where it is, without a word on record.
  case losesDamaged
}
