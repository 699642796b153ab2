// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

@Suite struct StoreOnARealDisk {
  @Test func sentMessagesAreThereAfterAReopening() async throws {
    try await withTemporaryDirectory { directory in
      var store = try await Store.open(at: directory)
      #expect(store.recovery.end == .created)
      var queue = try await store.queue("orders")
      let id = try await queue.send("one")
      try await queue.send(
        "two", attributes: [.init(name: "k", type: "String", value: .string("x"))])
      try await store.close()

      store = try await Store.open(at: directory)
      #expect(store.recovery.end == .closed)
      #expect(store.recovery.messages == 2)
      queue = try await store.queue("orders")
      let leases = try await queue.receive(maximum: 10)
      #expect(leases.map(\.text) == ["one", "two"])
      #expect(leases.first?.message.id == id)
      #expect(leases.last?.message.content.attributes.first?.value == .string("x"))
      for lease in leases { try await lease.delete() }
      #expect(try await queue.describe().counts.total == 0)
      try await store.close()
    }
  }
}
