// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockCodable
import PenstockTesting
import Synchronization
import Testing

private struct Order: Codable, Sendable, Equatable {
  var item: String
  var count: Int
}

@Suite struct TypedQueueTests {
  @Test func valuesArriveAsTheyWereSent() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.typed(TextCodec()).send("zwei Kännchen")
    #expect(try await queue.typed(TextCodec()).receive().first?.value == "zwei Kännchen")
    try await queue.typed(BytesCodec()).send([0, 255])
    #expect(try await queue.typed(BytesCodec()).receive().first?.value == [0, 255])
    let orders = queue.typed(Order.self)
    try await orders.send(Order(item: "tea/green", count: 2))
    let lease = try #require(try await orders.receive().first)
    #expect(try lease.value == Order(item: "tea/green", count: 2))
    #expect(lease.lease.text == #"{"count":2,"item":"tea/green"}"#)
    try await store.close()
  }

  @Test func whatIsNoValueThrowsWhenItIsAskedFor() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.send([0xff])
    try await queue.send("text")
    let leases = try await queue.typed(TextCodec()).receive(maximum: 2)
    #expect(await code { _ = try leases[0].value } == .undecodablePayload)
    #expect(try leases[1].value == "text")
    #expect(PenstockError(.undecodablePayload, "").family == .rejected)
    // Its lease is the caller's.
    try await leases[0].lease.release()
    #expect(try await queue.countsList == [1, 1, 0])
    try await store.close()
  }

  @Test func aConsumerGivesBackWhatIsNoValue() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.send("nonsense")
    let orders = queue.typed(Order.self)
    try await orders.send(Order(item: "tea", count: 1))
    let (events, progress) = AsyncStream.makeStream(of: String.self)
    let worker = Task {
      try await orders.consume { lease, error in
        progress.yield("\((error as? PenstockError)?.code.description ?? "?") \(lease.attempt)")
        return .seconds(60)
      } _: { order, _ in
        progress.yield(order.item)
      }
    }
    var seen: [String] = []
    for await event in events {
      seen.append(event)
      if seen.count == 2 { break }
    }
    worker.cancel()
    try await worker.value
    #expect(seen.sorted() == ["tea", "undecodablePayload 1"])
    #expect(try await queue.countsList == [0, 1, 0])
    try await store.close()
  }

  @Test(arguments: [1, 16]) func aConsumerThrowsWhatIsNoValueIfAskedTo(_ limit: Int) async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.send("nonsense")
    let result = await code {
      try await queue.typed(Order.self).consume(maxConcurrent: limit, undecodable: .thrown) {
        _, _ in
        Issue.record("there is no value")
      }
    }
    #expect(result == .undecodablePayload)
    #expect(try await queue.countsList == [1, 0, 0])
    if limit == 1 { #expect(try await queue.receive(wait: .zero).first?.attempt == 2) }
    try await store.close()
  }
}
