// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSQS
import Testing

/// Names that are another name to a reader, to the store or to a policy, but not to all of them.
@Suite struct LookAlikes {
  /// The letter K, and the Kelvin sign, which Swift takes for equal.
  private static let kelvin = "\u{212a}"

  private static let keys = """
    [owner]
    aws_access_key_id = OWNER
    aws_secret_access_key = secret-of-owner
    policy = {"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},\
    {"Effect":"Deny","Action":"sqs:*","Resource":"arn:aws:sqs:us-east-1:000000000000:Keys"}]}
    [other]
    aws_access_key_id = OTHER
    aws_secret_access_key = secret-of-other
    account = 222222222222
    """

  @Test func aQueueIsNotFoundByANameThatOnlyLooksLikeIts() async throws {
    try await ServiceFixture.run { fixture in
      _ = await fixture.call("CreateQueue", #"{"QueueName":"Keys"}"#)
      for url in ["\(Self.kelvin)eys", "http://h/000000000000/%E2%84%AAeys"] {
        let answer = await fixture.call("PurgeQueue", #"{"QueueUrl":"\#(url)"}"#)
        #expect(answer.error == "QueueDoesNotExist", "\(url)")
      }
      let arn = "arn:aws:sqs:us-east-1:000000000000:\(Self.kelvin)eys"
      let tasks = await fixture.call("ListMessageMoveTasks", #"{"SourceArn":"\#(arn)"}"#)
      #expect(tasks.error == "ResourceNotFoundException")
    }
  }

  @Test func deadLettersDoNotCrossAccountsByTheStoresOwnNames() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      for name in ["~222222222222/victim", "~"] {
        let policy =
          #"{\"deadLetterTargetArn\":\"arn:aws:sqs:us-east-1:000000000000:\#(name)\","#
          + #"\"maxReceiveCount\":1}"#
        let answer = await fixture.call(
          "SetQueueAttributes", #"{"QueueUrl":"$Q","Attributes":{"RedrivePolicy":"\#(policy)"}}"#)
        #expect(
          answer.message?.hasSuffix("Dead-letter target ARN should be fully qualified ARN.")
            == true)
      }
      for url in ["~222222222222/victim", "http://h/000000000000/~222222222222%2Fvictim"] {
        let answer = await fixture.call("PurgeQueue", #"{"QueueUrl":"\#(url)"}"#)
        #expect(answer.error == "QueueDoesNotExist", "\(url)")
      }
    }
  }

  @Test func policiesThatLookAlikeAreTwo() async throws {
    try await ServiceFixture.run { fixture in
      let store = try CredentialStore(
        parsing: Self.keys, region: "us-east-1", account: "000000000000")
      let service = SQSService(store: fixture.store, credentials: store)
      let signed = ServiceFixture(store: fixture.store, service: service)
      // The second policy denies another resource, whose name looks like this queue's.
      func policy(_ name: String) -> String {
        #"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","#
          + #""Action":"sqs:SendMessage","Resource":"*"},{"Effect":"Deny","Principal":"*","#
          + #""Action":"sqs:SendMessage","#
          + #""Resource":"arn:aws:sqs:us-east-1:000000000000:\#(name)"}]}"#
      }
      for (queue, resource) in [("decoy", "\(Self.kelvin)itchen"), ("Kitchen", "Kitchen")] {
        _ = try await fixture.store.queue(
          queue, QueueSettings { $0.policy = policy(resource) })
      }
      for (queue, status) in [("decoy", 200), ("Kitchen", 403), ("decoy", 200)] {
        let answer = await signed.call(
          "SendMessage",
          #"{"QueueUrl":"http://h/000000000000/\#(queue)","MessageBody":"m"}"#)
        #expect(answer.status == status, "\(queue): \(answer.text)")
      }
    }
  }

  @Test func onCreationAnEmptyAttributeIsNone() async throws {
    let empty = #"{"KmsMasterKeyId":"","RedrivePolicy":"","RedriveAllowPolicy":"","Policy":""}"#
    try await ServiceFixture.runWithQueue(#"{"SqsManagedSseEnabled":"true"}"#) { fixture in
      let again = await fixture.call(
        "CreateQueue", #"{"QueueName":"q","Attributes":\#(empty)}"#)
      #expect(again.status == 200, "\(again.text)")
    }
  }
}
