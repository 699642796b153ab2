// SPDX-License-Identifier: Apache-2.0
public import PenstockCore
internal import Synchronization

/// What a queue is, without its messages.
public struct QueueListing: Hashable, Sendable {
  /// Names the queue for as long as it is there.
  public var id: QueueID
  /// Unique among the queues that are there.
  public var name: String
  /// How it treats its messages.
  public var settings: QueueSettings
  /// When it was created.
  public var createdAt: Timestamp
  /// When settings other than tags last changed; `createdAt` if never.
  public var changedAt: Timestamp
}

/// The queues as the newest record has them, behind a lock of their own, so that who looks one up
/// does not wait for who sends to it.
///
/// It changes where a record is applied to the state, under the engine's lock: so whoever was told
/// of a queue, or of a change, finds it. It may be ahead of the disk, as the state is. Who tells of
/// it settles first: that section comes after the one that changed the catalogue, so it waits for
/// the record. A command that relies on it is decided by the state again.
struct Catalogue: Sendable {
  private var ids: [String: QueueID] = [:]
  private var queues: [QueueID: QueueListing] = [:]

  init(_ state: State) {
    for name in state.queueNames(prefix: "", after: nil, limit: .max) {
      if let id = state.queue(named: name) { follow(id, in: state) }
    }
  }

  subscript(name: String) -> QueueListing? { ids[name].flatMap { queues[$0] } }
  subscript(id: QueueID) -> QueueListing? { queues[id] }

  /// Takes over what a queue is now.
  mutating func follow(_ id: QueueID, in state: State) {
    if let queue = state.describe(id) {
      ids[queue.name] = id
      queues[id] = QueueListing(
        id: id, name: queue.name, settings: queue.settings, createdAt: queue.createdAt,
        changedAt: queue.changedAt)
    } else if let gone = queues.removeValue(forKey: id) {
      ids[gone.name] = nil
    }
  }
}

extension Engine {
  func listing(_ id: QueueID) -> QueueListing? { catalogue.withLock { $0[id] } }
}
