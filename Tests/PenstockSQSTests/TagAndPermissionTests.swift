// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSQS
import Testing

/// What queues carry besides their messages: tags, permissions, the claims about encryption.
@Suite struct TagsAndPermissions {
  private func attributes(_ fixture: ServiceFixture) async -> [String: String] {
    let answer = await fixture.call(
      "GetQueueAttributes", #"{"QueueUrl":"$Q","AttributeNames":["All"]}"#)
    return answer.object["Attributes"] as? [String: String] ?? [:]
  }

  private func tags(_ fixture: ServiceFixture) async -> [String: String]? {
    await fixture.call("ListQueueTags", #"{"QueueUrl":"$Q"}"#).object["Tags"] as? [String: String]
  }

  @Test func tagsAreMergedAndTakenAway() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      #expect(await tags(fixture) == nil)
      let first = await fixture.call(
        "TagQueue", #"{"QueueUrl":"$Q","Tags":{"a":"1","B":"","ü ·":"x"}}"#)
      // The dot in the middle is no letter.
      #expect(first.status == 400)
      for body in [#"{"a":"1","B":"","ü /":"x"}"#, #"{"a":"2","b":"3"}"#] {
        let answer = await fixture.call("TagQueue", #"{"QueueUrl":"$Q","Tags":\#(body)}"#)
        #expect(answer.status == 200 && answer.body.isEmpty)
      }
      #expect(await tags(fixture) == ["a": "2", "B": "", "ü /": "x", "b": "3"])
      let untag = await fixture.call(
        "UntagQueue", #"{"QueueUrl":"$Q","TagKeys":["a","none","ü /"]}"#)
      #expect(untag.status == 200 && untag.body.isEmpty)
      #expect(await tags(fixture) == ["B": "", "b": "3"])
    }
  }

  @Test func aQueueHasFiftyTags() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let many = (0..<50).map { #""k\#($0)":"v""# }.joined(separator: ",")
      let full = await fixture.call("TagQueue", #"{"QueueUrl":"$Q","Tags":{\#(many)}}"#)
      #expect(full.status == 200)
      let again = await fixture.call("TagQueue", #"{"QueueUrl":"$Q","Tags":{"k0":"w"}}"#)
      #expect(again.status == 200)
      let more = await fixture.call("TagQueue", #"{"QueueUrl":"$Q","Tags":{"k50":"w"}}"#)
      #expect(more.message == "Too many tags added for queue q.")
    }
  }

  @Test func tagsOfCreationAreKeptAndDoNotConflict() async throws {
    try await ServiceFixture.run { fixture in
      for value in ["1", "2"] {
        let made = await fixture.call(
          "CreateQueue", #"{"QueueName":"q","tags":{"a":"\#(value)"}}"#)
        #expect(made.status == 200)
      }
      #expect(await tags(fixture) == ["a": "1"])
    }
  }

  @Test func permissionsAreStatementsOfThePolicy() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let add = await fixture.call(
        "AddPermission",
        #"{"QueueUrl":"$Q","Label":"l","AWSAccountIds":["111122223333"],"#
          + #""Actions":["ReceiveMessage"]}"#)
      #expect(add.status == 200 && add.body.isEmpty)
      let arn = "arn:aws:sqs:us-east-1:000000000000:q"
      #expect(
        await attributes(fixture)["Policy"]
          == #"{"Version":"2008-10-17","Id":"\#(arn)/SQSDefaultPolicy","Statement":["#
          + #"{"Sid":"l","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"#
          + #""Action":"SQS:ReceiveMessage","Resource":"\#(arn)"}]}"#)
      let twice = await fixture.call(
        "AddPermission",
        #"{"QueueUrl":"$Q","Label":"l","AWSAccountIds":["111122223333"],"Actions":["*"]}"#)
      #expect(
        twice.message == "Value l for parameter Label is invalid. Reason: Already exists.")
      let other = await fixture.call("RemovePermission", #"{"QueueUrl":"$Q","Label":"m"}"#)
      #expect(other.message?.hasSuffix("can't find label on existing policy.") == true)
      let removed = await fixture.call("RemovePermission", #"{"QueueUrl":"$Q","Label":"l"}"#)
      #expect(removed.status == 200)
      #expect(await attributes(fixture)["Policy"] == nil)
    }
  }

  @Test func withoutAKeyRingEncryptionIsWhatWasSetAndNothingMore() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      func set(_ attributes: String) async -> Int {
        await fixture.call(
          "SetQueueAttributes", #"{"QueueUrl":"$Q","Attributes":\#(attributes)}"#
        ).status
      }
      #expect(await attributes(fixture)["SqsManagedSseEnabled"] == "false")
      #expect(await set(#"{"SqsManagedSseEnabled":"True"}"#) == 200)
      #expect(await attributes(fixture)["SqsManagedSseEnabled"] == "true")
      #expect(
        await set(#"{"KmsMasterKeyId":"alias/k","KmsDataKeyReusePeriodSeconds":"60"}"#) == 200)
      var now = await attributes(fixture)
      #expect(now["SqsManagedSseEnabled"] == "false" && now["KmsMasterKeyId"] == "alias/k")
      #expect(now["KmsDataKeyReusePeriodSeconds"] == "60")
      #expect(await set(#"{"SqsManagedSseEnabled":"false"}"#) == 200)
      #expect(await attributes(fixture)["KmsMasterKeyId"] == "alias/k")
      #expect(await set(#"{"KmsMasterKeyId":""}"#) == 200)
      now = await attributes(fixture)
      #expect(now["SqsManagedSseEnabled"] == "false" && now["KmsMasterKeyId"] == nil)
      #expect(now["KmsDataKeyReusePeriodSeconds"] == nil)
      // Nothing was sealed meanwhile, and nothing refused.
      let sent = await fixture.call("SendMessage", #"{"QueueUrl":"$Q","MessageBody":"m"}"#)
      #expect(sent.status == 200)
    }
  }

  @Test func cooldownsLastAMinute() async throws {
    try await ServiceFixture.run { fixture in
      var configuration = SQSConfiguration()
      configuration.hasCooldowns = true
      let strict = ServiceFixture(
        store: fixture.store,
        service: SQSService(store: fixture.store, configuration: configuration))
      _ = await strict.call("CreateQueue", #"{"QueueName":"q"}"#)
      #expect(await strict.call("PurgeQueue", #"{"QueueUrl":"$Q"}"#).status == 200)
      let again = await strict.call("PurgeQueue", #"{"QueueUrl":"$Q"}"#)
      #expect(again.status == 403 && again.error == "PurgeQueueInProgress")
      #expect(
        again.message == "Only one PurgeQueue operation on q is allowed every 60 seconds.")
      #expect(await strict.call("DeleteQueue", #"{"QueueUrl":"$Q"}"#).status == 200)
      let made = await strict.call("CreateQueue", #"{"QueueName":"q"}"#)
      #expect(made.status == 400 && made.error == "QueueDeletedRecently")
      #expect(await fixture.call("CreateQueue", #"{"QueueName":"q"}"#).status == 200)
    }
  }
}
